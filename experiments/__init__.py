"""The paper's analyses and figures, and checks of parts on real data: `python -m experiments NAME`."""
