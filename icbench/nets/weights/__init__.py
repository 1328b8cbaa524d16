"""Parametrisations of convolutions, one a file: `build(convolution, *, options)` returns the layer in its place.

The convolution is plain and initialised; every one of a net is replaced. The classifier stays a plain linear layer.
"""
