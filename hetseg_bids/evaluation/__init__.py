"""Comparison with reference segmentations."""
