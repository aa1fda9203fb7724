"""Statistics: small exact formulas, each with its source. NumPy and the standard library only."""
