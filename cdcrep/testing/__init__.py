"""What connector authors need to test a connector: an in-memory pair, contract suites, crash points."""
