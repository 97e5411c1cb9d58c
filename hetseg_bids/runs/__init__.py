"""When and where scans are processed, and what happens on failure.

`participants` is one call, `workers` its many scans, `scan` one of them, `group` all results,
of which `change` takes those of people with several sessions.
The steps of segmenting a scan are in the rooms above.
"""
