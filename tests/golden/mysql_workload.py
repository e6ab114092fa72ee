"""What the captures of `mysql_capture` hold: tables of every type, and statements that use every form of the log.

Statements are separated by "; " where several stand together. MYSQL_ and MARIADB_ mark what only one of the two knows.
"""

# ruff: noqa: E501 - SQL reads better in one piece

from __future__ import annotations

from typing import Final

TEMPORAL_COLUMNS: Final = ", ".join(
    f"dt{n} DATETIME({n}) NULL, t{n} TIME({n}) NULL, ts{n} TIMESTAMP({n}) NULL" for n in range(7)
)
TEMPORAL_VALUES: Final = (
    ("2024-02-29 23:59:59.999999", "838:59:59.000000", "2024-02-29 23:59:59.999999"),
    ("1000-01-01 00:00:00", "-838:59:59.000000", "1970-01-01 00:00:01"),
    ("9999-12-31 23:59:59.123456", "-00:00:00.100001", "2038-01-19 03:14:07.000001"),
    ("0000-00-00 00:00:00", "-01:02:03.987654", "0000-00-00 00:00:00"),
    ("2024-02-31 01:02:03.5", "00:00:00", "2001-09-09 01:46:40"),
    ("2024-00-15 00:00:00", "100:00:00.5", "1999-12-31 23:59:59.9"),
    ("0001-01-01 00:00:00", "-100:59:59.999999", "2000-01-01 00:00:00"),
)
WIDE: Final = 70

SCHEMA: Final = (
    "CREATE TABLE numbers (id INT PRIMARY KEY, ti TINYINT, tiu TINYINT UNSIGNED, si SMALLINT, siu SMALLINT UNSIGNED, "
    "mi MEDIUMINT, miu MEDIUMINT UNSIGNED, i INT, iu INT UNSIGNED, bi BIGINT, biu BIGINT UNSIGNED, f FLOAT, d DOUBLE, "
    "b1 BIT(1), b7 BIT(7), b9 BIT(9), b33 BIT(33), b64 BIT(64), y YEAR, flag BOOLEAN)",
    "CREATE TABLE decimals (id INT PRIMARY KEY, d1 DECIMAL(1,0), d52 DECIMAL(5,2), d9 DECIMAL(9,0), d189 DECIMAL(18,9), "
    "d19 DECIMAL(19,0), d3810 DECIMAL(38,10), d395 DECIMAL(39,5), d6530 DECIMAL(65,30), d65 DECIMAL(65,0), "
    "d3030 DECIMAL(30,30), du DECIMAL(12,2) UNSIGNED)",
    f"CREATE TABLE moments (id INT PRIMARY KEY, da DATE, {TEMPORAL_COLUMNS})",
    "CREATE TABLE texts (id INT PRIMARY KEY, l1 VARCHAR(300) CHARACTER SET latin1, c1 CHAR(10) CHARACTER SET latin1, "
    "u3 VARCHAR(20) CHARACTER SET utf8mb3, u4 VARCHAR(20) CHARACTER SET utf8mb4, c4 CHAR(200) CHARACTER SET utf8mb4, "
    "g VARCHAR(20) CHARACTER SET gbk, j VARCHAR(20) CHARACTER SET ujis, s VARCHAR(20) CHARACTER SET sjis, "
    "k CHAR(9) CHARACTER SET koi8r, u2 VARCHAR(9) CHARACTER SET ucs2, u16 VARCHAR(9) CHARACTER SET utf16, "
    "tt TINYTEXT CHARACTER SET utf8mb4, t TEXT CHARACTER SET latin1, mt MEDIUMTEXT CHARACTER SET utf8mb4, "
    "lt LONGTEXT CHARACTER SET gbk)",
    "CREATE TABLE bytes (id INT PRIMARY KEY, b BINARY(5), v VARBINARY(300), tb TINYBLOB, b2 BLOB, mb MEDIUMBLOB, "
    "lb LONGBLOB, g GEOMETRY, p POINT)",
    "CREATE TABLE labels (id INT PRIMARY KEY, e ENUM('a','b''c','ü','x,y') CHARACTER SET latin1, "
    f"e2 ENUM({','.join(repr(f'l{n}') for n in range(300))}), s SET('one','two','three') CHARACTER SET utf8mb4, "
    f"s64 SET({','.join(repr(f's{n}') for n in range(64))}))",
    f"CREATE TABLE wide (id INT PRIMARY KEY, {', '.join(f'c{n} ' + ('INT' if n % 3 else 'VARCHAR(9)') for n in range(WIDE))})",
    "CREATE TABLE images (id INT, part INT, v VARCHAR(20), big TEXT, n INT DEFAULT 5, PRIMARY KEY (part, id))",
    "CREATE TABLE keyless (a INT, b VARCHAR(9), c TEXT)",
    "CREATE TABLE computed (id INT PRIMARY KEY, a INT, virtual_ INT AS (a + 1) VIRTUAL, stored_ INT AS (a * 2) STORED, "
    "z INT)",
    "CREATE TABLE squeezed (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(500))",
    "CREATE TABLE statements (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(500))",
    "CREATE TABLE phantoms (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(500))",
    "CREATE TABLE mixed (id INT PRIMARY KEY, g GEOMETRY, l VARCHAR(9) CHARACTER SET latin1, u VARCHAR(9) CHARACTER SET utf8mb4, "
    "e ENUM('a') CHARACTER SET gbk, y YEAR, w VARCHAR(9) CHARACTER SET ucs2, b BLOB, n BIGINT UNSIGNED, k TEXT CHARACTER SET koi8r)",
)

MYSQL_SCHEMA: Final = (
    "CREATE TABLE documents (id INT PRIMARY KEY, j JSON, k JSON, v VARCHAR(9))",
    "CREATE TABLE vectors (id INT PRIMARY KEY, v VECTOR(3))",
    "CREATE TABLE hidden (id INT PRIMARY KEY, h INT INVISIBLE DEFAULT 7, v INT)",
)

MARIADB_SCHEMA: Final = (
    "CREATE TABLE documents (id INT PRIMARY KEY, j JSON)",
    "CREATE TABLE hidden (id INT PRIMARY KEY, h INT INVISIBLE DEFAULT 7, v INT)",
    "CREATE TABLE addresses (id INT PRIMARY KEY, u UUID, i4 INET4, i6 INET6)",
    "CREATE TABLE packed (id INT PRIMARY KEY, v VARCHAR(300) COMPRESSED CHARACTER SET utf8mb4, "
    "t TEXT COMPRESSED CHARACTER SET latin1, b BLOB COMPRESSED, vb VARBINARY(400) COMPRESSED)",
    "SET GLOBAL mysql56_temporal_format = OFF",
    "CREATE TABLE ancient (id INT PRIMARY KEY, " + TEMPORAL_COLUMNS + ")",
    "SET GLOBAL mysql56_temporal_format = ON",
    "CREATE TABLE versioned (id INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING",
)


def temporal_rows(table: str) -> str:
    """Insert every value into columns of every precision, and a row of NULLs."""
    rows = []
    for row, (moment, time, stamp) in enumerate(TEMPORAL_VALUES, 1):
        cells = ", ".join(f"'{moment}', '{time}', '{stamp}'" for _ in range(7))
        date = f", '{moment[:10]}'" if table == "moments" else ""
        rows.append(f"({row}{date}, {cells})")
    nulls = ", ".join(["NULL"] * (21 + (table == "moments")))
    return f"INSERT INTO {table} VALUES {', '.join(rows)}, (99, {nulls})"


def _decimals() -> str:
    columns = ((1, 0), (5, 2), (9, 0), (18, 9), (19, 0), (38, 10), (39, 5), (65, 30), (65, 0), (30, 30))
    by_column = []
    for precision, scale in columns:
        whole = precision - scale
        largest = "9" * whole + "." + "9" * scale
        smallest = "-0." + "0" * max(scale - 1, 0) + "1" if scale else "-1"
        mixed = ("1234567890" * 7)[:whole] + "." + ("0987654321" * 4)[:scale]
        power = "-1" + "0" * (whole - 1) if whole else "-0.1"
        by_column.append((largest, "-" + largest, "0", smallest, mixed, power))
    rows = [
        f"({row}, {', '.join(cells)}, {row * 1000}.05)" for row, cells in enumerate(zip(*by_column, strict=True), 1)
    ]
    return f"INSERT INTO decimals VALUES {', '.join(rows)}, (99{', NULL' * 11})"


def _wide() -> str:
    rows = []
    for row in range(20):
        cells = [
            "NULL" if (n * 7 + row) % 5 == 0 and row else (f"'{row}-{n}'" if n % 3 == 0 else str(row * n))
            for n in range(WIDE)
        ]
        rows.append(f"({row}, {', '.join(cells)})")
    return f"INSERT INTO wide VALUES {', '.join(rows)}"


SESSION: Final = (
    "SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00', NAMES utf8mb4",
    "SET binlog_row_image = 'FULL'",
)

CHANGES: Final = (
    "INSERT INTO numbers VALUES (1, -128, 255, -32768, 65535, -8388608, 16777215, -2147483648, 4294967295, "
    "-9223372036854775808, 18446744073709551615, -3.4e38, 1.7976931348623157e308, b'1', b'1111111', b'101010101', "
    "x'01FFFFFFFF', x'FFFFFFFFFFFFFFFF', 2155, TRUE), "
    "(2, 127, 0, 32767, 0, 8388607, 0, 2147483647, 0, 9223372036854775807, 9223372036854775808, 1.17549e-38, 5e-324, "
    "0, 0, 0, 0, 0, 0, FALSE), (3, -1, 128, -1, 32768, -1, 8388608, -1, 2147483648, -1, 1, 0.1, 0.1, 0, 1, 1, 1, 1, 1901, 5), "
    "(4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), "
    "(5, 1, NULL, 2, NULL, 3, NULL, 4, NULL, 5, NULL, -0.0, 1e100, NULL, 1, NULL, 3, NULL, 2000, NULL)",
    _decimals(),
    temporal_rows("moments"),
    "INSERT INTO texts VALUES (1, CONCAT('é€', REPEAT('x', 290)), 'a  ', 'ü€', '😀𝄞', REPEAT('€', 199), '中文', '日本語', '表', 'привет', "
    "'ü€', '😀', 'tiny', 'naïve', 'medium', '龙'), (2, _latin1 x'8081FF9D00', '', '', '', '', '', '', '', '', '', '', '', '', '', ''), "
    "(3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), "
    "(4, 'plain', 'plain', 'plain', 'plain', 'plain', 'plain', '\\\\', '\\\\', 'plain', 'plain', 'plain', '\"\\n', 'plain', 'plain', 'plain')",
    "INSERT INTO bytes VALUES (1, x'6100200000', x'00FF', x'', x'0001', REPEAT('m', 700), x'FF', "
    "ST_GeomFromText('LINESTRING(0 0,1 1.5)', 4326), ST_GeomFromText('POINT(1 2)')), "
    "(2, x'0000000000', x'', x'00', '', x'0000', '', ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1))'), NULL), "
    "(3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), (4, 'abcde', REPEAT('v', 300), 'x ', 'y  ', 'z', 'z', NULL, NULL)",
    "INSERT IGNORE INTO labels VALUES (1, 'a', 'l0', 'one', 's0'), (2, 'b''c', 'l299', 'one,three', 's0,s63,s31'), "
    "(3, 'ü', 'l255', '', ''), (4, 'not a label', 'l256', 'two', 's62'), (5, NULL, NULL, NULL, NULL), "
    "(6, 'x,y', 'l1', 'three,two,one', 's63')",
    _wide(),
    "INSERT INTO mixed VALUES (1, ST_GeomFromText('POINT(1 2)'), 'ü', '€', 'a', 0, '€', x'FF', 18446744073709551615, 'Я')",
    "INSERT INTO computed (id, a, z) VALUES (1, 10, 1), (2, NULL, 2)",
    "UPDATE computed SET a = 11 WHERE id = 1",
    "INSERT INTO hidden (id, v) VALUES (1, 1)",
    "INSERT INTO hidden (id, v, h) VALUES (2, 2, NULL)",
    "INSERT INTO keyless VALUES (1, 'a', 'x'), (1, 'a', 'x'), (NULL, NULL, NULL)",
    "UPDATE keyless SET b = 'b' WHERE a = 1 LIMIT 1",
    "DELETE FROM keyless WHERE a IS NULL",
    "INSERT INTO images VALUES (1, 1, 'one', REPEAT('b', 300), 1), (2, 1, 'two', NULL, 2), (3, 1, 'three', 'c', 3)",
    "UPDATE images SET v = 'ONE' WHERE id = 1",
    "UPDATE images SET id = 30 WHERE id = 3",
    "DELETE FROM images WHERE id = 2",
    "BEGIN; INSERT INTO images VALUES (4, 1, 'four', 'd', 4); UPDATE images SET v = 'FOUR' WHERE id = 4; SAVEPOINT s; "
    "DELETE FROM images WHERE id = 4; ROLLBACK TO s; INSERT INTO keyless VALUES (4, 'd', 'd'); COMMIT",
    "SET binlog_row_image = 'MINIMAL'",
    "INSERT INTO images VALUES (5, 1, 'five', 'e', 5), (6, 1, 'six', 'f', 6), (7, 1, NULL, NULL, NULL)",
    "UPDATE images SET v = NULL WHERE id = 5",
    "UPDATE images SET id = 60, n = NULL WHERE id = 6",
    "UPDATE images SET v = 'v', big = NULL WHERE part = 1",
    "DELETE FROM images WHERE id = 7",
    "UPDATE keyless SET c = 'y' WHERE a = 4",
    "DELETE FROM keyless WHERE a = 4",
    "SET binlog_row_image = 'NOBLOB'",
    "INSERT INTO images VALUES (8, 1, 'eight', 'h', 8)",
    "UPDATE images SET v = 'EIGHT' WHERE id = 8",
    "UPDATE images SET big = 'H' WHERE id = 8",
    "UPDATE images SET id = 80 WHERE id = 8",
    "SET binlog_row_image = 'FULL'",
    "XA START 'kept'; INSERT INTO keyless VALUES (5, 'xa', 'kept'); XA END 'kept'; XA PREPARE 'kept'; XA COMMIT 'kept'",
    "SET SESSION binlog_format = 'STATEMENT'; SET @v = 'user'; "
    "INSERT INTO statements (v) VALUES (@v); INSERT INTO statements (v) VALUES (LAST_INSERT_ID()); "
    "SET SESSION binlog_format = 'ROW'",
    "ALTER TABLE images ADD COLUMN extra DATE",
    "INSERT INTO images VALUES (9, 1, 'nine', 'i', 9, '2024-05-05')",
)

MYSQL_CHANGES: Final = (
    "SET binlog_row_value_options = ''",
    r"""INSERT INTO documents VALUES (1, '{"b": 1, "a": [1, 2.5, -3, true, null, "x\\"\\u001f\\n/ü😀"], "longer": {}}', '[]', 'a'), """
    r"""(2, '[18446744073709551615, -9223372036854775808, 1e100, 1.5e-7, 100000000000000, 1e15, 123456789012345678, 0.1, """
    r"""-0.0, 1e-15, 1e-14, 3.0, 70000, -70000, 4294967296]', '"s"', 'b'), (3, NULL, 'null', NULL), """
    "(4, CAST(CAST('2024-02-29 01:02:03.5' AS DATETIME(6)) AS JSON), CAST(CAST('-12:34:56.789' AS TIME(3)) AS JSON), 'c'), "
    "(5, CAST(CAST('12345678901234567890.123456789' AS DECIMAL(40,9)) AS JSON), CAST(CAST('2024-02-29' AS DATE) AS JSON), 'd'), "
    "(6, JSON_ARRAY(CAST(-0.5 AS DECIMAL(3,1)), x'00ff', b'101', ST_GeomFromText('POINT(1 2)')), "
    "CAST(CAST('0' AS DECIMAL(5,2)) AS JSON), 'e'), "
    "(7, JSON_OBJECT('k', REPEAT('x', 70000), 'l', JSON_ARRAY(1, 2)), JSON_ARRAY(JSON_ARRAY(), JSON_OBJECT()), 'f'), "
    "(8, JSON_OBJECT('a', 1, 'b', JSON_OBJECT('c', 2), 'd', JSON_ARRAY(1, 2, 3)), JSON_OBJECT('x', 'y'), 'g')",
    "SET binlog_row_value_options = 'PARTIAL_JSON'",
    "UPDATE documents SET j = JSON_SET(j, '$.a', 'changed', '$.b.c', JSON_ARRAY(9)) WHERE id = 8",
    "UPDATE documents SET j = JSON_REMOVE(j, '$.d[1]'), k = JSON_REPLACE(k, '$.x', 12.5) WHERE id = 8",
    "UPDATE documents SET v = 'h' WHERE id = 8",
    "UPDATE documents SET j = JSON_SET(j, '$.\"new key\"', 'n'), k = JSON_OBJECT('whole', 1) WHERE id = 8",
    "UPDATE documents SET j = JSON_SET(j, '$[0]', 'first') WHERE id IN (2, 6)",
    "UPDATE documents SET k = JSON_SET(k, '$.x', 1) WHERE id >= 1",
    "SET binlog_row_value_options = ''",
    "INSERT INTO vectors VALUES (1, STRING_TO_VECTOR('[1.5, -2, 3e10]')), (2, NULL)",
    "SET SESSION binlog_transaction_compression = ON",
    "BEGIN; INSERT INTO squeezed (v) VALUES (REPEAT('a', 400)), (REPEAT('b', 400)); UPDATE squeezed SET v = 'c' LIMIT 1; COMMIT",
    "SET SESSION binlog_transaction_compression = OFF",
    "SET gtid_next = 'AUTOMATIC:tagged'; INSERT INTO squeezed (v) VALUES ('tagged'); SET gtid_next = 'AUTOMATIC'",
    "SET binlog_rows_query_log_events = ON; INSERT INTO squeezed (v) VALUES ('annotated'); SET binlog_rows_query_log_events = OFF",
    "XA START 'dropped'; INSERT INTO phantoms (v) VALUES ('never'); XA END 'dropped'; XA PREPARE 'dropped'; XA ROLLBACK 'dropped'",
)

MARIADB_CHANGES: Final = (
    """INSERT INTO documents VALUES (1, '{"b": 1,  "a": [1, 2.50]}'), (2, NULL)""",
    "INSERT INTO addresses VALUES (1, '123e4567-e89b-12d3-a456-426655440000', '192.0.2.1', '2001:db8::ff00:42:8329'), "
    "(2, '017f22e2-79b0-7cc3-98c4-dc0c0c07398f', '0.0.0.0', '::ffff:192.0.2.1'), (3, NULL, NULL, NULL), "
    "(4, '00000000-0000-0000-0000-000000000000', '255.255.255.255', '::'), "
    "(5, 'ffffffff-ffff-ffff-ffff-ffffffffffff', '10.0.0.0', '::1'), "
    "(6, 'c232ab00-9414-11ec-b3c8-9f6bdeced846', '1.2.3.4', '1:0:0:2:0:0:0:3'), "
    "(7, '1ec9414c-232a-6b00-b3c8-9f6bdeced846', NULL, '::192.0.2.1'), "
    "(8, '919108f7-52d1-4320-9bac-f847db4148a8', NULL, 'fe80::'), (9, '919108f7-52d1-4320-1bac-f847db4148a8', NULL, '1::8:0'), "
    "(10, '5df41881-3aed-3515-88a7-2f4a814cf09e', NULL, NULL), (11, '2489e9ad-2ee2-8e00-8ec9-32d5f69181c0', NULL, NULL)",
    "INSERT INTO packed VALUES (1, REPEAT('ü', 150), REPEAT('é', 1000), REPEAT('z', 5000), REPEAT('v', 400)), (2, '', '', '', ''), "
    "(3, NULL, NULL, NULL, NULL), (4, 'short', 'short', x'00', x'FF')",
    temporal_rows("ancient"),
    "INSERT INTO versioned VALUES (1, 1)",
    "UPDATE versioned SET v = 2",
    "DELETE FROM versioned",
    "SET GLOBAL log_bin_compress = ON, log_bin_compress_min_len = 10",
    "INSERT INTO squeezed (v) VALUES (REPEAT('a', 400)), (REPEAT('b', 400))",
    "UPDATE squeezed SET v = REPEAT('c', 300) LIMIT 1",
    "DELETE FROM squeezed LIMIT 1",
    "CREATE TABLE squeezed_too (id INT PRIMARY KEY, a_rather_long_name_for_a_column_so_that_it_is_compressed INT)",
    "SET GLOBAL log_bin_compress = OFF",
    "SET gtid_domain_id = 7; INSERT INTO squeezed (v) VALUES ('elsewhere'); SET gtid_domain_id = 0",
    "XA START 'dropped'; INSERT INTO phantoms (v) VALUES ('never'); XA END 'dropped'; XA PREPARE 'dropped'; XA ROLLBACK 'dropped'",
)
