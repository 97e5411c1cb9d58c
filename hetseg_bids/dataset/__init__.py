"""Which T1w images there are: in a BIDS dataset, or without one; its validator; the demo dataset.

No image is opened here.
"""
