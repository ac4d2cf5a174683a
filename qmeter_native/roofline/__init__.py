"""Rooflines: points and ceilings, and their projection to another GPU. Arithmetic only."""
