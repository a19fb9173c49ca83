"""Eigensegments of an image and their fusion with the network's prediction (paper 3.4, 3.5)."""
