"""Is the image good enough, and is the result?  Measures, verdicts, outliers of a cohort.

How they are shown is in `reports`.
"""
