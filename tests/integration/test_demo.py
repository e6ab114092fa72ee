"""The demonstration plays to its end, says what it found, and is not to be fooled."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from rich.console import Console

from cdcrep.cli.program import main
from cdcrep.demo import mysql_shop, run
from cdcrep.demo.mysql_programs import VARIABLE, find_programs
from cdcrep.demo.play import play
from cdcrep.demo.postgres_server import find_binaries
from cdcrep.errors import ConfigError, SetupError
from tests.servers.fix_postgres import unavailable
from tests.servers.mysql_binaries import RELEASES
from tests.servers.mysql_binaries import find_binaries as binaries_for_tests
from tests.servers.waiting import wait_until

pytestmark = pytest.mark.servers

SPOILING = """
DELETE FROM shop.orders WHERE id = (SELECT min(id) FROM shop.orders);
UPDATE shop.customers SET name = name || ' ' WHERE id = (SELECT min(id) FROM shop.customers);
INSERT INTO shop.events FROM shop.events WHERE writer = 1 AND seq = 1;
DELETE FROM shop.events WHERE writer = 2 AND seq = 1;
UPDATE shop.counters SET value = value + 1 WHERE writer = 3;
INSERT INTO shop.products (sku, price, stock) VALUES ('never sold', 1, 1);
"""


@pytest.fixture(autouse=True)
def binaries() -> Path:
    """Any PostgreSQL will do."""
    try:
        return find_binaries()
    except SetupError as error:
        unavailable(str(error))
        raise


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the demonstration's files go."""
    return tmp_path / "demo"


def small_play(
    directory: Path, *, kills: int = 0, spoil: str = "", keep: bool = False, database: str = "postgresql"
) -> tuple[int, str]:
    """Play with few rows; return the exit code and what was printed."""

    def before_comparison(copy: Path) -> None:
        with duckdb.connect(str(copy)) as connection:
            if spoil:
                connection.execute(spoil)

    output = io.StringIO()
    code = play(
        directory,
        Console(file=output, width=160),
        kills=kills,
        seed=1,
        keep=keep,
        database=database,
        orders=4_000,
        backlog_transactions=5,
        latency_seconds=0.0,  # one transaction, however slow the machine is
        before_comparison=before_comparison,
    )
    return code, output.getvalue()


def figure(output: str, name: str) -> int:
    """Return a number of the printed table."""
    found = re.search(rf"^ *{name} +([\d,]+)", output, re.MULTILINE)
    assert found, output
    return int(found[1].replace(",", ""))


def test_the_demonstration_survives_its_kills_and_says_what_it_found(directory: Path) -> None:
    code, output = small_play(directory, kills=4)

    assert code == 0, output
    assert figure(output, "kills survived") == 4
    assert (figure(output, "rows lost"), figure(output, "rows duplicated"), figure(output, "rows altered")) == (0, 0, 0)
    assert figure(output, "rows") > 16_000
    assert "seed 1" in output
    assert sorted(file.name for file in directory.iterdir()) == ["demo.duckdb", "demo.log", "demo.toml"]
    assert not running_in(directory)


def test_the_demonstration_of_mysql_survives_its_kills_and_finds_what_is_spoilt(directory: Path) -> None:
    try:
        find_programs()
    except SetupError as error:
        unavailable(str(error))

    code, output = small_play(directory, kills=2, spoil=SPOILING, database="mysql")

    assert code == 1
    assert figure(output, "kills survived") == 2
    assert (figure(output, "rows lost"), figure(output, "rows duplicated"), figure(output, "rows altered")) == (3, 2, 3)
    assert figure(output, "rows") > 16_000
    assert sorted(file.name for file in directory.iterdir()) == ["demo.duckdb", "demo.log", "demo.toml"]
    assert not running_in(directory)


@pytest.mark.parametrize("release", ["mysql-9.7", "mariadb-11.8"])
def test_a_shop_opens_on_either_server_which_really_syncs(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        root = binaries_for_tests(RELEASES[release]).root
    except SetupError as error:
        unavailable(str(error))
    monkeypatch.setenv(VARIABLE, str(root))

    with mysql_shop.start_server() as server:
        shop = mysql_shop.open_shop(server)
        shop.create(40, lambda _table, _rows: None)
        with shop.connect() as connection:
            (settings,) = connection.execute(b"SELECT @@sync_binlog, @@innodb_flush_log_at_trx_commit").fetchall()
        loaded = Path(f"/proc/{server.pid}/maps").read_text()

    assert server.is_mariadb is release.startswith("mariadb")
    assert settings == (1, 1)
    assert "libeatmydata" not in loaded
    assert shop.rows > 40


def test_every_way_to_spoil_the_copy_is_found(directory: Path) -> None:
    code, output = small_play(directory, spoil=SPOILING)

    assert code == 1
    assert (figure(output, "rows lost"), figure(output, "rows duplicated"), figure(output, "rows altered")) == (3, 2, 3)
    assert re.findall(r"^shop\..*", output, re.MULTILINE) == [
        "shop.customers: 1 rows altered",
        "shop.products: 1 rows surplus",
        "shop.orders: 1 rows lost",
        "shop.counters: 1 rows altered",
        "shop.events: 1 rows lost, 1 rows duplicated",
    ]
    assert re.search(r"^writer 1: .* 0 are missing, 1 stand twice", output, re.MULTILINE)
    assert re.search(r"^writer 2: .* 1 are missing, 0 stand twice", output, re.MULTILINE)
    assert re.search(r"^writer 3: ([\d,]+) transactions .* the counter says (?!\1)", output, re.MULTILINE)


def test_what_is_left_running_can_be_queried_and_stopped(
    directory: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CDCREP_RUNTIME_DIR", str(tmp_path))
    code, output = small_play(directory, keep=True)
    stop = ["sh", str(directory / "demo-stop.sh")]
    try:
        assert code == 0, output
        with pytest.raises(SystemExit) as ended:
            main(["query", str(directory / "demo.toml"), "SELECT count(*) AS n FROM shop.events", "--format", "csv"])
        with pytest.raises(ConfigError, match="left running"):
            run(directory, False, 0, None, Console())
    finally:
        subprocess.run(stop, check=True)

    assert ended.value.code == 0
    assert int(capsys.readouterr().out.split()[1]) > 1_000
    assert sorted(file.name for file in directory.iterdir()) == ["demo.duckdb", "demo.log", "demo.toml"]
    wait_until(lambda: not running_in(directory))


def test_files_of_others_are_not_touched(directory: Path) -> None:
    directory.mkdir()
    (directory / "demo.duckdb").write_text("precious")

    with pytest.raises(ConfigError, match=r"demo\.duckdb"):
        run(directory, False, 0, None, Console())

    assert (directory / "demo.duckdb").read_text() == "precious"
    assert [file.name for file in directory.iterdir()] == ["demo.duckdb"]


@pytest.mark.parametrize(("source", "driver"), [("postgresql", "psycopg"), ("mysql", "pymysql")])
def test_a_missing_driver_is_named_with_what_to_install(directory: Path, source: str, driver: str) -> None:
    program = (
        f"import sys; sys.modules[{driver!r}] = None; from cdcrep.cli import main; "
        f"main(['demo', '--source', {source!r}, '--directory', {str(directory)!r}])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == ConfigError.exit_code
    assert driver in done.stderr
    assert "pip install 'cdcrep[demo]'" in done.stderr


def running_in(directory: Path) -> list[int]:
    """Return the processes whose command line names a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(directory).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found
