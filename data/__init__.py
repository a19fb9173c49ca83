"""Data sets as TFDS builders, folds of seen and unseen classes, augmentation and Grain loading."""

from data.datasets import SegmentationData, Split, load

__all__ = ["SegmentationData", "Split", "load"]
