-- A small shop, owned by the role that replicates it.
SET ROLE cdc;

CREATE TABLE customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL UNIQUE,
    preferences jsonb NOT NULL DEFAULT '{}'
);

CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers,
    state text NOT NULL DEFAULT 'open',
    total numeric(12, 2) NOT NULL,
    placed_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO customers (name, email, preferences)
SELECT 'Customer ' || n, 'customer' || n || '@example.com', jsonb_build_object('newsletter', n % 3 = 0)
FROM generate_series(1, 100) AS n;

INSERT INTO orders (customer_id, state, total, placed_at)
SELECT 1 + n % 100, (ARRAY['open', 'paid', 'sent'])[1 + n % 3], (n % 500) + 0.99, now() - n * interval '1 minute'
FROM generate_series(1, 1000) AS n;
