"""The training loop, its samples and its losses, for ``hetseg-train``.

No other room imports from here, but for the command line.
"""
