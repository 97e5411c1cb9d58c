"""Comparison with reference segmentations, for ``hetseg-evaluate``.

No network runs here.
"""
