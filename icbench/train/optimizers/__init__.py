"""Optimisers, one a file: `build(groups, learning_rate, *, options)` returns the torch optimiser."""
