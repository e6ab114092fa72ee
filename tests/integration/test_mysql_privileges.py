"""What `check` asks to be granted is enough to copy and to follow, and privileges of roles count."""

from __future__ import annotations

import uuid
from contextlib import closing

from cdcrep.connector import Copied
from tests.integration.mysql_following import ids, run, source_of
from tests.servers.fix_mysql import every_mysql
from tests.servers.mysql_database import MySQLDatabase

PRIVILEGES = "REPLICATION SLAVE, REPLICATION CLIENT, RELOAD"


@every_mysql
def test_a_user_with_the_privileges_that_check_asks_for_is_enough(mysql_source: MySQLDatabase) -> None:
    run(mysql_source, "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    user = mysql_source.create_user(PRIVILEGES)

    with closing(source_of(mysql_source, url=mysql_source.url_as(user))) as source:
        obstacles, (table,) = source.obstacles(), source.tables()
        snapshot = source.snapshot()
        (chunk,) = snapshot.chunks(table, None)
        copied = [id_ for part in snapshot.read(chunk)["arrow"]() for id_ in part["id"].to_pylist()]
        run(mysql_source, "INSERT INTO t VALUES (2)")
        streamed = ids(list(source.stream(snapshot.position, {table.id: Copied(snapshot.position)}, source.current())))

    assert obstacles == []
    assert (copied, streamed) == ([1], [2])


@every_mysql
def test_a_user_without_privileges_is_told_which(mysql_source: MySQLDatabase) -> None:
    run(mysql_source, "CREATE TABLE t (id int PRIMARY KEY)")
    user = mysql_source.create_user("PROCESS")

    with closing(source_of(mysql_source, url=mysql_source.url_as(user))) as source:
        hints = [obstacle.hint for obstacle in source.obstacles() if obstacle.fatal]

    assert [hint.split(" ON ")[0] for hint in hints] == [f"GRANT {each}" for each in PRIVILEGES.split(", ")]


@every_mysql
def test_privileges_of_a_role_count(mysql_source: MySQLDatabase) -> None:
    run(mysql_source, "CREATE TABLE t (id int PRIMARY KEY)")
    user, role = mysql_source.create_user("USAGE"), f"role_{uuid.uuid4().hex[:12]}"
    by_default = f"{role} FOR" if mysql_source.server.release.is_mariadb else f"{role} TO"
    run(
        mysql_source,
        f"CREATE ROLE {role}",
        f"GRANT {PRIVILEGES} ON *.* TO {role}",
        f"GRANT {role} TO {user}@'%'",
        f"SET DEFAULT ROLE {by_default} {user}@'%'",
    )

    with closing(source_of(mysql_source, url=mysql_source.url_as(user))) as source:
        obstacles = source.obstacles()
    run(mysql_source, f"DROP ROLE {role}")

    assert obstacles == []
