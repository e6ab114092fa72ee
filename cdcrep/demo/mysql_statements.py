"""What the shop is made of in MySQL and MariaDB, and what its writers do to it, as SQL."""

from __future__ import annotations

from typing import Final

# No foreign keys: the storage engine would cascade without a trace in the binary log, which `cdcrep check` refuses.
SCHEMA: Final = """
CREATE DATABASE shop CHARACTER SET utf8mb4;
CREATE TABLE shop.customers (
    id bigint AUTO_INCREMENT PRIMARY KEY,
    token char(36) CHARACTER SET ascii NOT NULL DEFAULT (uuid()),
    name varchar(100) NOT NULL,
    subscribed boolean,
    tags set('quoted', 'žluťoučký', 'new', 'seen') NOT NULL DEFAULT '',
    profile json,
    joined timestamp(6) NOT NULL DEFAULT now(6));
CREATE TABLE shop.products (
    sku varchar(40) PRIMARY KEY,
    price decimal(12,2) NOT NULL,
    stock int NOT NULL,
    released year,
    description mediumtext);
CREATE TABLE shop.orders (
    id bigint AUTO_INCREMENT PRIMARY KEY,
    customer_id bigint NOT NULL,
    state enum('cart', 'paid', 'shipped', 'returned') NOT NULL DEFAULT 'cart',
    placed timestamp(6) NOT NULL DEFAULT now(6),
    total decimal(14,2) NOT NULL DEFAULT 0,
    note text,
    KEY (customer_id));
CREATE TABLE shop.order_lines (
    order_id bigint,
    line int,
    sku varchar(40) NOT NULL,
    quantity int NOT NULL,
    price decimal(12,2),
    gift boolean NOT NULL DEFAULT false,
    PRIMARY KEY (order_id, line));
CREATE TABLE shop.counters (writer int PRIMARY KEY, value bigint NOT NULL);
CREATE TABLE shop.events (
    writer int, seq bigint, kind varchar(20) NOT NULL, at timestamp(6) NOT NULL, payload json, KEY (writer, seq));
CREATE DATABASE stock;
CREATE TABLE stock.numbers (i int PRIMARY KEY);
INSERT INTO stock.numbers VALUES (1)
"""
DOUBLE: Final = "INSERT INTO stock.numbers SELECT i + (SELECT count(*) FROM stock.numbers) FROM stock.numbers"

FIRST_ROWS: Final = {
    "products": """
        INSERT INTO shop.products SELECT concat('P', lpad(i, 5, '0')), (i %% 9000) / 7 + 1, 100000,
            CASE WHEN i %% 3 > 0 THEN 1950 + i %% 70 END, repeat(concat('product ', i, ', '), 180)
        FROM stock.numbers WHERE i <= %(products)s""",
    "customers": """
        INSERT INTO shop.customers (name, subscribed, tags, profile, joined)
        SELECT concat('Customer ', i), CASE i %% 3 WHEN 0 THEN true WHEN 1 THEN false END,
            CASE WHEN i %% 4 > 0 THEN 'quoted,žluťoučký' ELSE '' END,
            json_object('level', i %% 7, 'city', 'Київ', 'seen', json_array(i, i + 1), 'fax', NULL),
            '1999-12-31 18:29:59.999999' + INTERVAL i * 3607.25 SECOND
        FROM stock.numbers WHERE i <= %(customers)s""",
    "orders": """
        INSERT INTO shop.orders (customer_id, state, placed, total, note)
        SELECT 1 + i %% %(customers)s, 1 + i %% 4, now() - INTERVAL i * 90 SECOND, i * 1.37,
            CASE WHEN i %% 5 = 0 THEN 'ring twice\\n\\tthen wait' END
        FROM stock.numbers WHERE i <= %(orders)s""",
    "order_lines": """
        INSERT INTO shop.order_lines
        SELECT n.i, l.i, concat('P', lpad(1 + (n.i * l.i) %% %(products)s, 5, '0')),
            1 + n.i %% 5, CASE WHEN n.i %% 11 > 0 THEN (n.i %% 300) / 3 END, n.i %% 17 = 0
        FROM stock.numbers n JOIN stock.numbers l ON l.i <= 1 + n.i %% 4 WHERE n.i <= %(orders)s AND l.i <= 4""",
    "events": """
        INSERT INTO shop.events
        SELECT 0, i, 'history', now() - INTERVAL i SECOND, json_object('page', i %% 50)
        FROM stock.numbers WHERE i <= %(events)s""",
    "counters": "INSERT INTO shop.counters VALUES (0, %(events)s)",
}

ONE_ORDER: Final = "WHERE id >= %(order)s ORDER BY id LIMIT 1"
ONE_CUSTOMER: Final = "WHERE id >= %(customer)s ORDER BY id LIMIT 1"
ONE_PRODUCT: Final = "WHERE sku >= concat('P', lpad(%(product)s, 5, '0')) ORDER BY sku LIMIT 1"

CHANGES: Final = (
    # Orders come, grow, move on and are dropped with their lines.
    f"""INSERT INTO shop.orders (customer_id, note) VALUES (%(customer)s, %(text)s);
        INSERT INTO shop.order_lines
        SELECT last_insert_id(), i, (SELECT sku FROM shop.products {ONE_PRODUCT}), %(few)s, %(price)s, i = 2
        FROM stock.numbers WHERE i <= %(few)s""",
    f"UPDATE shop.orders SET state = 'paid', total = total + %(price)s {ONE_ORDER}",
    "UPDATE shop.orders SET state = 'shipped', note = NULL WHERE id BETWEEN %(order)s AND %(order)s + %(few)s * 3",
    "UPDATE shop.order_lines SET quantity = quantity + 1, gift = NOT gift WHERE order_id = %(order)s",
    "DELETE FROM shop.order_lines WHERE order_id = %(order)s AND line = %(few)s",
    """DELETE FROM shop.order_lines WHERE order_id = %(order)s;
       DELETE FROM shop.orders WHERE id = %(order)s""",
    # Keys change, an order's with those of its lines; two lines swap places.
    """UPDATE shop.orders SET id = id + 1000000 WHERE id = %(order)s;
       UPDATE shop.order_lines SET order_id = order_id + 1000000 WHERE order_id = %(order)s""",
    f"UPDATE shop.customers SET id = id + 1000000 {ONE_CUSTOMER}",
    """UPDATE shop.order_lines SET line = -1 WHERE order_id = %(order)s AND line = 1;
       UPDATE shop.order_lines SET line = 1 WHERE order_id = %(order)s AND line = 2;
       UPDATE shop.order_lines SET line = 2 WHERE order_id = %(order)s AND line = -1""",
    # Customers come and change.
    """INSERT INTO shop.customers (name, subscribed, tags, profile)
       VALUES (%(text)s, NULL, 'new', json_object('text', %(text)s, 'n', %(price)s))""",
    f"""UPDATE shop.customers SET profile = json_set(profile, '$.level', %(few)s), tags = 'new,seen',
        subscribed = true {ONE_CUSTOMER}""",
    # A few products are in everybody's way; their long descriptions mostly stay.
    "UPDATE shop.products SET stock = stock - %(few)s WHERE sku < 'P00010'",
    f"UPDATE shop.products SET price = %(price)s, released = 2000 + %(few)s {ONE_PRODUCT}",
    f"UPDATE shop.products SET description = repeat(%(text)s, 400) {ONE_PRODUCT}",
    "UPDATE shop.products SET sku = concat(sku, 'x') WHERE sku = concat('P', lpad(%(product)s, 5, '0'))",
    # Rows that are equal in every column: exactly one of them is changed, exactly one deleted.
    """INSERT INTO shop.events SELECT NULL, NULL, 'click', '1970-01-02 00:00:00', '{}' FROM stock.numbers
       WHERE i <= 3""",
    "UPDATE shop.events SET payload = '{\"seen\": true}' WHERE writer IS NULL LIMIT 1",
    "DELETE FROM shop.events WHERE writer IS NULL LIMIT 1",
)

COUNT: Final = "UPDATE shop.counters SET value = value + 1 WHERE writer = %s"
NOTE: Final = """
INSERT INTO shop.events SELECT writer, value, 'transaction', now(6), '{}' FROM shop.counters WHERE writer = %s
"""

MANY_ORDERS: Final = """
INSERT INTO shop.orders (customer_id, total) SELECT 0, 9.75 FROM stock.numbers WHERE i <= %(orders)s
"""
THEIR_LINES: Final = """
INSERT INTO shop.order_lines
SELECT o.id, n.i, 'P00001', 1, 3.25, false FROM shop.orders o JOIN stock.numbers n ON n.i <= %(lines)s
WHERE o.customer_id = 0 AND o.id >= last_insert_id()
"""

COLUMNS: Final = """
SELECT column_name, data_type FROM information_schema.columns
WHERE table_schema = 'shop' AND table_name = %s ORDER BY ordinal_position
"""
KEY: Final = """
SELECT column_name FROM information_schema.statistics
WHERE table_schema = 'shop' AND table_name = %s AND index_name = 'PRIMARY' ORDER BY seq_in_index
"""
