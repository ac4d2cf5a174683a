"""Who spent the time and the energy: pure functions of a capture."""
