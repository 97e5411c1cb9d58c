"""From a file to a standardised brain at 1 mm: headers, conform, brain mask, intensities.

Nothing here knows of networks.
"""
