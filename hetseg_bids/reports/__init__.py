"""HTML pages and their pictures.

All values are read from tables and images: none is computed here.
"""
