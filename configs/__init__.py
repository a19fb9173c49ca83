"""One file a setting that a person would name; `defaults.py` lists every key."""
