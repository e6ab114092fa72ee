"""PostgreSQL 14 to 18 as a source and as a target."""
