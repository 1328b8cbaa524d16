"""The commands of `icbench`, one a file: each puts the other modules together and prints."""
