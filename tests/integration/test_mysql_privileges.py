"""What `check` asks to be granted is enough to copy and to follow, and privileges of roles count."""

from __future__ import annotations

import uuid
from contextlib import closing
from functools import partial

import pymysql
import pytest
from pymysql.cursors import Cursor

from cdcrep.connector import Copied
from cdcrep_connectors.mysql.privileges import read_privileges, whole_database
from tests.integration.mysql_following import ids, run, source_of
from tests.servers.fix_mysql import every_mysql
from tests.servers.mysql_binaries import RELEASES
from tests.servers.mysql_database import MySQLDatabase

PRIVILEGES = "REPLICATION SLAVE, REPLICATION CLIENT, RELOAD"


@every_mysql
@pytest.mark.parametrize("locking", ["RELOAD", "LOCK TABLES"])
def test_a_user_with_the_privileges_that_check_asks_for_is_enough(mysql_source: MySQLDatabase, locking: str) -> None:
    run(mysql_source, "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    user = mysql_source.create_user(PRIVILEGES.replace("RELOAD", locking))

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
        hints = [obstacle.hint for obstacle in source.obstacles()]

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


@every_mysql
def test_a_table_whose_columns_may_not_all_be_read_is_named_with_the_grant(mysql_source: MySQLDatabase) -> None:
    run(mysql_source, "CREATE TABLE t (id int PRIMARY KEY, secret int)")
    user = mysql_source.create_user(PRIVILEGES)
    run(
        mysql_source,
        f"REVOKE SELECT ON {mysql_source.name}.* FROM {user}@'%'",
        f"GRANT SELECT (id) ON {mysql_source.name}.t TO {user}@'%'",
    )

    with closing(source_of(mysql_source, url=mysql_source.url_as(user))) as source:
        (obstacle,) = source.obstacles()
        run(mysql_source, obstacle.hint)
        left = source.obstacles()

    assert obstacle.fatal
    assert f"{mysql_source.name}.t: user {user}@% may not read all of its columns" == obstacle.what
    assert left == []


TRIED = {
    "SELECT": "SELECT * FROM {0}.t LIMIT 0",
    "INSERT": "INSERT INTO {0}.t (v) VALUES (1)",
    "UPDATE": "UPDATE {0}.t SET v = 1",
    "DROP": "TRUNCATE {0}.t",
    "LOCK TABLES": "LOCK TABLES {0}.t READ",
}


LISTED = "GRANT SELECT (v) ON {table} TO {user}"
OVERLAPPING = {
    "wildcards": ["GRANT INSERT ON `test%`.* TO {user}", "GRANT UPDATE ON `tes%`.* TO {user}", LISTED],
    "role": [
        "GRANT INSERT ON `test%`.* TO {role}",
        "GRANT DROP, LOCK TABLES ON `tes%`.* TO {user}",
        "GRANT SELECT ON {table} TO {role}",
        LISTED,
    ],
    "literal": ["GRANT LOCK TABLES, SELECT ON {database} TO {user}", "GRANT INSERT ON `test%`.* TO {user}", LISTED],
    "partial revokes": [
        "GRANT SELECT, INSERT, UPDATE ON *.* TO {user}",
        "GRANT DROP ON `test%`.* TO {user}",
        "REVOKE SELECT, INSERT ON {plain} FROM {user}",
        "GRANT SELECT ON {table} TO {user}",
    ],
}


OVERLAPPING["mandatory role"] = OVERLAPPING["role"]
OVERLAPPING["mandatory role that is not active"] = OVERLAPPING["role"]
SETTINGS = {
    "partial revokes": {"partial_revokes": "ON"},
    "mandatory role": {"mandatory_roles": "'{role}'", "activate_all_roles_on_login": "ON"},
    "mandatory role that is not active": {"mandatory_roles": "'{role}'"},
}
"""Of the server; MariaDB has none of them."""

EACH = [(release, kind) for kind in OVERLAPPING for release in RELEASES if kind not in SETTINGS or "mysql" in release]


@pytest.mark.parametrize(("mysql_release", "kind"), EACH, indirect=["mysql_release"])
def test_privileges_are_what_the_server_allows(mysql_source: MySQLDatabase, kind: str) -> None:
    mariadb, name = mysql_source.server.release.is_mariadb, mysql_source.name
    user, role = mysql_source.create_user("REPLICATION SLAVE"), f"role_{uuid.uuid4().hex[:12]}"
    account = f"{user}@'%'"
    run(mysql_source, "CREATE TABLE t (v int, w int)", f"REVOKE SELECT ON {name}.* FROM {account}")
    names = {
        "user": account,
        "role": role,
        "table": f"{name}.t",
        "database": whole_database(name),
        "plain": f"{name}.*",
    }
    by_default = f"SET DEFAULT ROLE {role} {'FOR' if mariadb else 'TO'} {account}"
    settings = SETTINGS.get(kind, {})
    try:
        run(mysql_source, *(f"SET GLOBAL {key} = {value.format(role=role)}" for key, value in settings.items()))
        run(mysql_source, f"CREATE ROLE {role}", *(each.format(**names) for each in OVERLAPPING[kind]))
        if kind == "role":
            run(mysql_source, f"GRANT {role} TO {account}", by_default)
        with mysql_source.server.connect(user=user, password="secret") as session, session.cursor() as cursor:
            said = TRIED.keys() - set(read_privileges(partial(fetched, cursor)).lacking(list(TRIED), name, "t"))
            allowed = {
                privilege for privilege, statement in TRIED.items() if is_allowed(cursor, statement.format(name))
            }
    finally:
        # A role that is mandatory cannot be dropped, nor can what is revoked partially be kept without the setting.
        roles = {key: "DEFAULT" for key in settings if "role" in key}
        run(mysql_source, *(f"SET GLOBAL {key} = {value}" for key, value in roles.items()))
        run(mysql_source, f"DROP ROLE {role}", f"DROP USER {account}")
        mysql_source.users.clear()
        run(mysql_source, *(f"SET GLOBAL {key} = DEFAULT" for key in settings.keys() - roles))

    assert said == allowed
    assert 0 < len(allowed) < len(TRIED)


def fetched(cursor: Cursor, statement: str) -> list[tuple[str, ...]]:
    cursor.execute(statement)
    return list(cursor.fetchall())


def is_allowed(cursor: Cursor, statement: str) -> bool:
    try:
        cursor.execute(statement)
    except pymysql.OperationalError:
        return False
    cursor.execute("UNLOCK TABLES")
    return True
