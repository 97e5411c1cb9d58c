"""Reading a BIDS dataset: its images and sessions, its validator's errors; and the demo dataset.

No image is opened here.
"""
