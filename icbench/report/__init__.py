"""From results to statements: metrics, statistics, tables."""
