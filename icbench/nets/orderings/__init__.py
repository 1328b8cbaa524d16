"""Residual-branch orderings, one a file, declared without torch: the grid reads them too."""
