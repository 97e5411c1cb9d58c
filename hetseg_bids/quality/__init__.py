"""Whether an image and its result are good enough: measures, verdicts, outliers of a cohort.

How they are shown is in `reports`.
"""
