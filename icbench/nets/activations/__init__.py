"""Activations, one a file: `build()`, `dropout(rate)`, the dropout that goes with it, and `GAIN`.

The variance of initial weights is GAIN**2 / fan_in.
"""
