"""Normalisation layers over (N, C, H, W) maps, one a file: `build(channels, *, options)` returns the module."""
