"""Who follows the source: PostgreSQL's subscription, cdcrep, and a reader that only counts."""
