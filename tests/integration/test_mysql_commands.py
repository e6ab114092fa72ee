"""Every command works with MySQL and MariaDB on either side."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cdcrep.cli import main
from tests.integration.pairs import MySQLSide, Pair, opened
from tests.servers.database import RunningServer
from tests.servers.fix_mysql import every_mysql
from tests.servers.mysql_database import MySQLDatabase, RunningMySQL

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("CDCREP_RUNTIME_DIR", str(tmp_path))

    def run(*arguments: str) -> tuple[int, str]:
        if arguments[0] in ("run", "backfill"):
            # They end their process.
            command = [sys.executable, "-m", "cdcrep", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            return done.returncode, done.stdout + done.stderr
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        return int(ended.value.code or 0), capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("origin", "destination"),
    [("mysql-9.7", "duckdb"), ("postgresql-18", "mariadb-11.8"), ("mariadb-10.11", "mysql-9.7")],
)
def test_every_command_works(
    origin: str,
    destination: str,
    run: Run,
    tmp_path: Path,
    postgres_server: Callable[[int], RunningServer],
    mysql_server: Callable[[str], RunningMySQL],
) -> None:
    with (
        opened(origin, tmp_path, postgres_server, mysql_server) as source,
        opened(destination, tmp_path, postgres_server, mysql_server) as target,
    ):
        pair = Pair(source, target, tmp_path)
        try:
            every_command(pair, run, str(tmp_path / "shop.toml"))
        finally:
            source.drop(pair.schema)
            target.drop(pair.schema)


def every_command(pair: Pair, run: Run, config: str) -> None:
    pair.write("CREATE SCHEMA {s}", "CREATE TABLE {s}.orders (id int PRIMARY KEY, note varchar(20))")
    pair.write("INSERT INTO {s}.orders VALUES (1, 'one'), (2, NULL)")
    urls = ("--source", pair.source.url, "--target", pair.target.url)

    written = run("init", config, *urls, "--table", f"{pair.schema}.*", "--name", pair.schema)
    checked = run("check", config)
    first = run("run", config, "--until-current")
    pair.write("INSERT INTO {s}.orders VALUES (3, 'three')")
    behind = run("status", config, "--json")
    again = run("run", config, "--until-current")
    current = run("status", config, "--json")
    asked = run("query", config, f"SELECT id, note FROM {pair.schema}.orders ORDER BY id", "--format", "csv")
    torn_down = run("teardown", config, "--yes")

    # Without a running process `status` says by its code whether anything waits.
    assert [code for code, _ in (written, checked, first, again, asked, torn_down)] == [0] * 6
    assert [code for code, _ in (behind, current)] == [1, 0]
    assert "1 table" in checked[1]
    lag, table = json.loads(behind[1])["lag"]["bytes"], json.loads(current[1])["tables"][f"{pair.schema}.orders"]
    assert (lag > 0, table["rows_copied"], table["changes_applied"]) == (True, 2, 1)
    assert asked[1].splitlines() == ["id,note", "1,one", "2,", "3,three"]
    pair.assert_equal("orders", ("id", "note"))
    assert "removed" in torn_down[1]
    once(pair, run)


def once(pair: Pair, run: Run) -> None:
    """Copy once, without a file, over what is there."""
    pair.write("UPDATE {s}.orders SET note = 'changed' WHERE id = 2", "DELETE FROM {s}.orders WHERE id = 1")
    urls = (pair.source.url, pair.target.url)
    tables = ("--table", f"{pair.schema}.*", "--set", "tables.on_existing=replace")

    copied = run("backfill", *urls, *tables)
    after = run("status", *urls, "--json")

    assert copied[0] == 0
    assert json.loads(after[1]).get("tables", {}) == {}
    assert len(pair.assert_equal("orders", ("id", "note"))) == 2


def test_a_server_is_not_replicated_into_itself(
    run: Run, tmp_path: Path, mysql_server: Callable[[str], RunningMySQL]
) -> None:
    side = MySQLSide(mysql_server("mysql-9.7"))
    pair = Pair(side, side, tmp_path)
    pair.write("CREATE SCHEMA {s}", "CREATE TABLE {s}.orders (id int PRIMARY KEY)", "INSERT INTO {s}.orders VALUES (1)")
    urls = (side.url, side.url.replace("127.0.0.1", "localhost").replace("mysql:", "mariadb:"))
    try:
        ended = run("run", *urls, "--table", f"{pair.schema}.*", "--set", "tables.on_existing=replace")

        assert ended[0] == 3
        assert "source and target are the same server" in ended[1]
        assert side.select(f"SELECT id FROM {pair.schema}.orders") == [(1,)]
    finally:
        side.drop(pair.schema)


@every_mysql
def test_the_privileges_that_the_documentation_grants_are_enough(run: Run, mysql_source: MySQLDatabase) -> None:
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    (privileges,) = re.findall(r"GRANT (REPLICATION .*) ON \*\.\* TO cdc;", page)
    mysql_source.execute("CREATE TABLE orders (id int PRIMARY KEY)")
    user = mysql_source.create_user(privileges)

    checked = run("check", mysql_source.url_as(user), "duckdb:///never.duckdb", "--table", f"{mysql_source.name}.*")

    assert checked[0] == 0, checked[1]
    assert "obstacle" not in checked[1]
