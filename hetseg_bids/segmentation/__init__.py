"""From a standardised brain to labels, flip probabilities and volumes.

Everything is in memory: files are written by `outputs`.
"""
