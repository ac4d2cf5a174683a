"""Reports in several forms. Reporters format; they compute nothing."""
