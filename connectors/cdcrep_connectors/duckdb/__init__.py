"""DuckDB files as targets: one embedded database file that holds the copies and the checkpoint."""
