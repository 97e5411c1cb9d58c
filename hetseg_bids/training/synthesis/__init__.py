"""Synthetic scans: from a label map to a T1w image with weak labels.

Nothing here knows of networks or of the training loop.
"""
