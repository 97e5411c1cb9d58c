"""HTML pages and their pictures.

No value is computed here that a table doesn't hold.
"""
