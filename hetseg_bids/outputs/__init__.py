"""Files that hold results: how they are named, written, read again and exported.

Pages are in `reports`.
"""
