"""Procedures around a training, one a file: `build(*, options)` returns an icbench.procedure.Procedure.

The grid reads these files too: torch is imported where it is used.
"""
