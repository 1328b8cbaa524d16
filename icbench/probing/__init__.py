"""How probes measure: what they are given, and what they give."""
