"""What is read of a BIDS dataset: its T1w images, what its validator says, and the demo dataset.

No image is opened here.
"""
