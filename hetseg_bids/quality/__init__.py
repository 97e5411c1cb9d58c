"""Whether an image and its result are good enough: measures, verdicts, outliers, change over time.

How they are shown is in `reports`.
"""
