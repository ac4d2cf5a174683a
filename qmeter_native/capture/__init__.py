"""Recording: sessions, ranges, serving runs, and finalizing spools into a capture."""
