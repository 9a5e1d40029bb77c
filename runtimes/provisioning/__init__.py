"""F1: from a flight plan to a committed generation of the engine store."""
