"""What sinks that speak SQL share, by calling it."""
