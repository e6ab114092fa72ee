"""What the connectors of relational databases share, by calling it."""
