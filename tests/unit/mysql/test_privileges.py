"""SHOW GRANTS is read as the servers mean it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cdcrep.table import TableId
from cdcrep_connectors.mysql.privileges import Privileges, account, whole_database
from cdcrep_connectors.mysql.source_rights import SourceRights


@pytest.mark.parametrize(
    ("line", "covers"),
    [
        ("GRANT SELECT, INSERT ON *.* TO `u`@`%`", True),
        ("GRANT ALL PRIVILEGES ON `shop`.* TO `u`@`%`", True),
        (r"GRANT SELECT, INSERT ON `sh\_p`.* TO `u`@`%`", False),
        ("GRANT SELECT, INSERT ON `sh_p`.* TO `u`@`%`", True),
        ("GRANT SELECT, INSERT ON `shop`.`users` TO `u`@`%`", True),
        ("GRANT SELECT, INSERT ON `shop`.`user` TO `u`@`%`", False),
        ("GRANT SELECT, INSERT (`a`, `b`) ON `shop`.`users` TO `u`@`%`", False),
        ("GRANT SELECT, INSERT (`a)`), INSERT, UPDATE (`b`) ON `shop`.`users` TO `u`@`%`", True),
        ("GRANT SELECT (`x, INSERT ON *.* TO y`) ON `shop`.`users` TO `u`@`%`", False),
        ("GRANT `role`@`%` TO `u`@`%`", False),
        ("GRANT `SELECT, INSERT ON *.* TO `@`%` TO `u`@`%`", False),
        ("GRANT ALL PRIVILEGES ON PROCEDURE `shop`.`users` TO `u`@`%`", False),
        ("GRANT PROXY ON 'a'@'%' TO 'u'@'%'", False),
        ("GRANT SELECT, INSERT, CREATE TEMPORARY TABLES ON `%`.* TO `u`@`%` WITH GRANT OPTION", True),
        ("GRANT SELECT, INSERT ON *.* TO `u`@`%` IDENTIFIED BY PASSWORD '*B69' REQUIRE SSL", True),
        ("GRANT SELECT, INSERT ON `shop`.* TO PUBLIC", True),
    ],
)
def test_a_line_is_read_as_the_server_means_it(line: str, covers: bool) -> None:
    assert (Privileges((line,)).lacking(["SELECT", "INSERT"], "shop", "users") == []) is covers


@pytest.mark.parametrize(
    ("lines", "lacking"),
    [
        # The grant with the closest name is the only one of its user that counts.
        (["GRANT SELECT ON `sh%`.* TO `u`@`%`", "GRANT INSERT ON `sho%`.* TO `u`@`%`"], ["SELECT"]),
        (["GRANT SELECT ON `shop`.* TO `u`@`%`", "GRANT INSERT ON `sho%`.* TO `u`@`%`"], ["INSERT"]),
        # MariaDB shows a role's besides.
        (["GRANT SELECT ON `shop`.* TO `u`@`%`", "GRANT INSERT ON `sho%`.* TO `role`"], []),
        (["GRANT SELECT ON `sh%`.* TO `u`@`%`", "GRANT INSERT ON `shop`.`users` TO `u`@`%`"], []),
        # A partial revoke takes away what is granted on everything.
        (["GRANT SELECT, INSERT ON *.* TO `u`@`%`", "REVOKE INSERT ON `shop`.* FROM `u`@`%`"], ["INSERT"]),
        (["GRANT SELECT, INSERT ON *.* TO `u`@`%`", "REVOKE INSERT ON `sho_`.* FROM `u`@`%`"], []),
        (
            [
                "GRANT SELECT, INSERT ON *.* TO `u`@`%`",
                "REVOKE SELECT, INSERT ON `shop`.* FROM `u`@`%`",
                "GRANT SELECT ON `shop`.`users` TO `u`@`%`",
            ],
            ["INSERT"],
        ),
    ],
)
def test_lines_add_up_as_in_the_server(lines: Sequence[str], lacking: Sequence[str]) -> None:
    assert Privileges(tuple(lines)).lacking(["SELECT", "INSERT"], "shop", "users") == lacking


def test_mysql_with_roles_takes_the_first_of_several_wildcards() -> None:
    lines = ["GRANT SELECT ON `sh%`.* TO `u`@`%`", "GRANT INSERT ON `sho%`.* TO `u`@`%`"]
    plain = "GRANT UPDATE ON `shop`.* TO `u`@`%`"

    assert Privileges(tuple(lines), as_shown=True).lacking(["SELECT", "INSERT"], "shop") == ["INSERT"]
    assert Privileges((*lines, plain), as_shown=True).lacking(["SELECT", "UPDATE"], "shop") == ["SELECT"]


def test_with_partial_revokes_names_of_databases_have_no_wildcards() -> None:
    privileges = Privileges(("GRANT SELECT ON `sh%`.* TO `u`@`%`",), wildcards=False)

    assert privileges.lacking(["SELECT"], "shop") == ["SELECT"]
    assert privileges.lacking(["SELECT"], "sh%") == []


MONITORING = "REPLICATION CLIENT"


@pytest.mark.parametrize(
    ("mariadb", "privileges", "asked"),
    [
        (False, "REPLICATION SLAVE, REPLICATION CLIENT, RELOAD", []),
        (False, "REPLICATION SLAVE, SUPER,FLUSH_TABLES", []),
        (False, "SUPER", ["REPLICATION SLAVE", "RELOAD"]),
        (False, "BACKUP_ADMIN,XA_RECOVER_ADMIN", ["REPLICATION SLAVE", MONITORING, "RELOAD"]),
        (False, "LOCK TABLES, REPLICATION SLAVE, REPLICATION CLIENT", []),
        (True, "REPLICATION SLAVE, BINLOG MONITOR, RELOAD", []),
        # As releases before 10.5 call it.
        (True, "REPLICATION SLAVE, REPLICATION CLIENT, LOCK TABLES", []),
        (True, "REPLICATION SLAVE ADMIN, BINLOG ADMIN, SUPER", ["REPLICATION SLAVE", MONITORING, "RELOAD"]),
        (True, "ALL PRIVILEGES", []),
    ],
)
def test_the_source_asks_for_what_it_needs(mariadb: bool, privileges: str, asked: Sequence[str]) -> None:
    rights = SourceRights(mariadb, "u@%", Privileges((f"GRANT {privileges} ON *.* TO `u`@`%`",)))

    found = [*rights.of_streaming(), *rights.of_locking([TableId("shop", "users")])]

    assert [obstacle.hint.split(" ON ")[0] for obstacle in found] == [f"GRANT {name}" for name in asked]
    assert [obstacle.fatal for obstacle in found] == [not (mariadb and name == "RELOAD") for name in asked]


def test_what_to_type_names_user_and_database_exactly() -> None:
    assert account("o'd\\d@10.0.0.%") == r"'o''d\\d'@'10.0.0.%'"
    assert whole_database("a_b`c%") == r"`a\_b``c\%`.*"
