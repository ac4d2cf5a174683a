"""The nouns: frozen dataclasses and table schemas, on the standard library and numpy only."""
