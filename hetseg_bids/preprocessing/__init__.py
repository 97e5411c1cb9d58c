"""From a file to a standardised 1 mm brain: header checks, conform, strip, normalise."""
