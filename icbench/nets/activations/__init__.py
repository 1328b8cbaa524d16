"""Activations, one a file: `build()`, and `dropout(rate)`, the dropout that goes with it.

`INITIALIZATION`, where a file has it, is that of nets with the activation, whatever the recipe's is.
"""
