"""Parsers of the commands, which then call the rooms above.

No scan is read here.
"""
