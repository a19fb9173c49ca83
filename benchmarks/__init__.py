"""How fast, how large and how exact the programs are, beside PyTorch's where it is installed."""
