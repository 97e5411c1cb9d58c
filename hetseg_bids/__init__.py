"""hetseg: brain segmentation that says where it may be wrong."""

__version__ = "0.1.0"
