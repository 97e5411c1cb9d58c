"""When and where scans are processed, and what happens on failure.

`participants` is one call, `workers` its many scans, `scan` one of them, `group` all results.
What is done to a scan stands in the rooms before.
"""
