"""What is asked of an engine, and the client that asks it."""
