"""The demonstration: a real PostgreSQL server replicated through kill after kill."""
