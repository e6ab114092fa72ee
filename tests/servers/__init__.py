"""Real servers for the tests: fixtures, their installation, and faults on the wire."""
