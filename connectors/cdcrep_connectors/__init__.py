"""The connectors shipped with cdcrep, one package per database, found by URL scheme through entry points."""
