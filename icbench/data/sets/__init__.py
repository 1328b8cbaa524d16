"""Data sets, one a file, described without torch."""
