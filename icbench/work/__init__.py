"""What processes that train do: claim runs, train them, write their results, stop when they should."""
