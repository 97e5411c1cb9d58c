"""Parsers of the commands.

The work is done elsewhere.
"""
