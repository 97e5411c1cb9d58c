"""Training: sample sources, losses, the loop.  Nothing outside imports from here but the CLI."""
