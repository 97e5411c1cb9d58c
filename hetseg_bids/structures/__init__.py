"""The labels: structures, their tables, and where they lie in a template and in an atlas.

No file of a scan is read here.
"""
