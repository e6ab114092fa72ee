"""The tests of cdcrep: unit, golden, properties, contract, integration, crash; `servers` holds their fixtures."""
