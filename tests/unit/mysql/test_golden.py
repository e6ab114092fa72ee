"""What MySQL 9.7, MariaDB 11.8 and MariaDB 10.11 once wrote into their logs decodes to what their tables then held."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest

from cdcrep.errors import DataError
from cdcrep_connectors.mysql.binlog import Decoder
from cdcrep_connectors.mysql.described_tables import describe
from cdcrep_connectors.mysql.event_types import EventType
from cdcrep_connectors.mysql.expansion import expand
from cdcrep_connectors.mysql.types import ImpossibleDates
from tests.unit.mysql.captures import (
    SERVERS,
    catalogue,
    decode,
    events,
    fold,
    said,
    same_double,
    types_of,
)

NOT_IN_ROWS = {"statements", "squeezed_too", "versioned"}
"""Logged as statements, without rows, refused."""


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def differences(mine: list[list[str | None]], table: dict[str, Any]) -> list[tuple[str, str | None, str | None]]:
    def order(row: list[str | None]) -> list[str]:
        return [str(cell) for cell in row]

    theirs = sorted(table["rows"], key=order)
    assert len(mine) == len(theirs)
    found = []
    for my_row, their_row in zip(sorted(mine, key=order), theirs, strict=True):
        for column, my, their in zip(table["columns"], my_row, their_row, strict=True):
            floats = column["native"].startswith(("float", "double"))
            if my != their and not (floats and same_double(my, their)):
                found.append((column["name"], my, their))
    return found


def test_every_table_holds_what_the_server_selects(server: str) -> None:
    decoded = decode(server)
    tables = said(server)["tables"]

    assert set(tables) - NOT_IN_ROWS <= set(decoded)
    for name in set(tables) - NOT_IN_ROWS - {"phantoms"}:
        assert (name, differences(fold(decoded[name]), tables[name])) == (name, [])


def test_the_log_alone_gives_the_same_values(server: str) -> None:
    tables = said(server)["tables"]
    decoded = decode(server, from_log=True)

    # MariaDB does not say in its log what an UUID is.
    for name in set(decoded) - {"phantoms", "addresses"}:
        assert (name, differences(fold(decoded[name]), tables[name])) == (name, [])
        names = [column["name"] for column in tables[name]["columns"]]
        assert [column.name for column in decoded[name][-1].table.columns] == names
        assert set(decoded[name][-1].table.key) == {
            column["name"] for column in tables[name]["columns"] if column["key"]
        }


def test_rows_of_an_xa_transaction_that_was_rolled_back_are_in_the_log(server: str) -> None:
    (phantoms,) = decode(server)["phantoms"]

    assert phantoms.new.column("v").to_pylist() == ["never"]
    assert said(server)["tables"]["phantoms"]["rows"] == []


def test_partial_images_leave_cells_unchanged_instead_of_null(server: str) -> None:
    before_alter, after_alter = decode(server)["images"]
    names = [column.name for column in before_alter.table.columns]

    assert before_alter.table.key == ("id", "part")
    assert {names[i]: int(mask.sum()) for i, mask in before_alter.unchanged.items()} == {"v": 1, "big": 4, "n": 7}
    assert "extra" in {column.name for column in after_alter.table.columns}


def test_typed_dates_equal_their_text_and_count_what_became_null(server: str) -> None:
    (as_text,) = decode(server)["moments"]
    (typed,) = decode(server, ImpossibleDates.NULL)["moments"]

    assert types_of(typed)["da"] == pa.date32()
    assert types_of(typed)["dt6"] == pa.timestamp("us")
    assert types_of(typed)["ts0"] == pa.timestamp("us", tz="UTC")
    nulls: Counter[str] = Counter()
    for name in typed.new.column_names:
        texts = as_text.new.column(name).to_pylist()
        for text, value in zip(texts, typed.new.column(name).to_pylist(), strict=True):
            if text is not None and value is None:
                nulls[name] += 1
                assert text.startswith("0000-00-00") or text[5:10] in ("02-31", "00-15")
            elif text is not None and name.startswith("d"):
                whole = value.isoformat(" ", "microseconds") if name != "da" else value.isoformat()
                assert whole[: len(text)] == text
    assert nulls["da"] == 3
    assert nulls["ts3"] == 1


def test_dates_that_are_none_are_refused_by_name(server: str) -> None:
    with pytest.raises(DataError, match=r"golden\.moments: column 'da': a date that is none") as caught:
        decode(server, ImpossibleDates.REFUSE)

    assert caught.value.hint is not None


@pytest.mark.parametrize("server", ["mariadb-11.8", "mariadb-10.11"])
def test_the_oldest_temporal_types_are_not_guessed(server: str) -> None:
    plain, _ = expand(events(server))

    with pytest.raises(DataError, match="does not say how many digits the column 'dt0' has"):
        Decoder(lambda seen: describe(seen) if seen.name == "ancient" else None, mariadb=True).decode(plain)


def test_a_table_that_the_rows_do_not_fit_is_refused() -> None:
    plain, _ = expand(events("mariadb-11.8"))

    with pytest.raises(DataError, match=r"golden\.versioned: the rows do not have .* also row_start, row_end"):
        Decoder(catalogue("mariadb-11.8"), mariadb=True).decode(plain)


def test_the_captures_hold_the_events_that_the_decoder_knows() -> None:
    seen = {server: {EventType(kind) for kind in events(server).types.tolist()} for server in SERVERS}

    both = {
        EventType.FORMAT_DESCRIPTION,
        EventType.ROTATE,
        EventType.QUERY,
        EventType.XID,
        EventType.TABLE_MAP,
        EventType.XA_PREPARE,
        EventType.INTVAR,
        EventType.USER_VAR,
    }
    mysql = {
        EventType.PREVIOUS_GTIDS,
        EventType.GTID,
        EventType.GTID_TAGGED,
        EventType.WRITE_ROWS,
        EventType.UPDATE_ROWS,
        EventType.DELETE_ROWS,
        EventType.PARTIAL_UPDATE_ROWS,
        EventType.TRANSACTION_PAYLOAD,
        EventType.ROWS_QUERY,
    }
    mariadb = {
        EventType.GTID_LIST,
        EventType.MARIADB_GTID,
        EventType.BINLOG_CHECKPOINT,
        EventType.ANNOTATE_ROWS,
        EventType.WRITE_ROWS_V1,
        EventType.UPDATE_ROWS_V1,
        EventType.DELETE_ROWS_V1,
        EventType.QUERY_COMPRESSED,
        EventType.WRITE_ROWS_COMPRESSED_V1,
        EventType.UPDATE_ROWS_COMPRESSED_V1,
        EventType.DELETE_ROWS_COMPRESSED_V1,
    }
    assert both | mysql <= seen["mysql-9.7"]
    assert both | mariadb <= seen["mariadb-11.8"]
    assert both | mariadb <= seen["mariadb-10.11"]
