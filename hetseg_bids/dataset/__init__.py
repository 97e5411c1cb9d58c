"""Which T1w images there are, and when they were taken; the validator; the demo dataset.

No image is opened here.
"""
