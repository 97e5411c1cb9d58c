"""Reading a BIDS dataset: its T1w images, its validator's errors; and the demo dataset.

No image is opened here.
"""
