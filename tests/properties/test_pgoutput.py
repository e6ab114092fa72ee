"""Whatever rows and messages the server writes, decoding gives them back; whatever else it writes is a DataError."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdcrep.changes import Changes
from cdcrep.errors import DataError
from cdcrep_connectors.postgres.batches import BatchAssembler, Bounds
from cdcrep_connectors.postgres.lsn import format_position
from cdcrep_connectors.postgres.pgoutput import Decoder, boundaries
from cdcrep_connectors.postgres.relation import Relation
from cdcrep_connectors.postgres.window import Window
from tests.properties.pgoutput_messages import (
    Row,
    Value,
    begin,
    commit,
    copy_data,
    delete,
    frames,
    insert,
    keepalive,
    logical_message,
    make_relation,
    make_table,
    messages,
    origin,
    relation_message,
    truncate,
    type_message,
    update,
    xlog,
)

FUZZ_INPUTS = 200_000

texts = st.one_of(st.text(max_size=12), st.text(alphabet="tnudNKO\x00\x01", max_size=6))


@dataclass
class Expected:
    """A change as the decoder should see it: the new row with b"u" for unchanged, and the identity's old values."""

    message: bytes
    operation: str
    new: Row
    old: Row | None


@st.composite
def changes(draw: Any, relation: Relation) -> Expected:
    names = [column.name for column in relation.columns]
    key = [i for i, column in enumerate(relation.columns) if column.is_key and relation.replica_identity == "d"]
    full = relation.replica_identity == "f"

    def row(*, unchanged: bool = False) -> list[Value]:
        values: list[Value] = [draw(st.one_of(st.none(), texts)) for _ in names]
        for i in key:
            values[i] = draw(texts)
        if unchanged:
            values = [b"u" if draw(st.booleans()) else value for value in values]
        return values

    operation = draw(st.sampled_from("IUUD"))
    if operation == "I":
        new = row()
        return Expected(insert(relation.oid, new), "I", new, None)
    before = row()
    old: list[Value] = before if full else [value if i in key else None for i, value in enumerate(before)]
    kind = b"O" if full else b"K"
    identity = old if full else [old[i] for i in key]
    if operation == "D":
        return Expected(delete(relation.oid, old, kind), "D", [None] * len(names), identity)
    new = row(unchanged=True)
    if not full and draw(st.booleans()):
        for i in key:
            new[i] = draw(texts)
        return Expected(update(relation.oid, new), "U", new, None)
    known = [old[i] if value == b"u" and (full or i in key) else value for i, value in enumerate(new)]
    moved = full or [known[i] for i in key] != identity
    return Expected(update(relation.oid, new, old, kind), "U", known, identity if moved else None)


@st.composite
def histories(draw: Any) -> tuple[list[Relation], list[Expected]]:
    relations = []
    for oid in range(1, draw(st.integers(1, 3)) + 1):
        names = [f"c{n}" for n in range(draw(st.integers(1, 5)))]
        if draw(st.booleans()):
            relations.append(make_relation(names, [], oid=oid, identity="f"))
        else:
            key = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
            relations.append(make_relation(names, key, oid=oid))
    history = draw(st.lists(st.sampled_from(relations).flatmap(changes), max_size=30))
    return relations, history


def seen(decoded: Changes) -> list[tuple[str, list[Value], list[Value] | None]]:
    found: list[tuple[str, list[Value], list[Value] | None]] = []
    new, old = decoded.new.to_pylist(), decoded.old.to_pylist() if decoded.old is not None else []
    for i, operation in enumerate(decoded.operations):
        row: list[Value] = list(new[i].values())
        for ordinal, mask in decoded.unchanged.items():
            if mask[i]:
                assert row[ordinal] is None
                row[ordinal] = b"u"
        present = decoded.old_present is not None and decoded.old_present[i]
        found.append((chr(operation), row, list(old[i].values()) if present else None))
    return found


@given(histories())
def test_decoding_gives_back_every_table_in_order(history: tuple[list[Relation], list[Expected]]) -> None:
    relations, expected = history
    noise = [origin(), type_message(), logical_message()]
    contents = [*map(relation_message, relations), *noise, *(change.message for change in expected)]

    decoded = Decoder(make_table).decode(messages(contents))

    oids = [int.from_bytes(change.message[1:5], "big") for change in expected]
    assert [changes.table.name for changes in decoded] == [f"t{oid}" for oid in dict.fromkeys(oids)]
    for changes in decoded:
        mine = [e for oid, e in zip(oids, expected, strict=True) if f"t{oid}" == changes.table.name]
        assert seen(changes) == [(e.operation, list(e.new), None if e.old is None else list(e.old)) for e in mine]


@settings(max_examples=40)
@given(histories(), st.lists(st.integers(1, 6), max_size=10), st.integers(1, 400), st.integers(1, 8))
def test_transactions_are_the_same_however_their_bytes_arrive(
    history: tuple[list[Relation], list[Expected]], lengths: list[int], bite: int, most_rows: int
) -> None:
    relations, expected = history
    payloads: list[bytes] = [keepalive(1)]
    left, lsn = [change.message for change in expected], 10
    described = [relation_message(relation) for relation in relations]
    for length in [*lengths, len(left)]:
        payloads += map(xlog, [begin(lsn), *described, *left[:length], commit(lsn, lsn + 5)])
        left, described, lsn = left[length:], [], lsn + 10
    bounds = Bounds(most_rows, 1 << 20, 200)
    taker = BatchAssembler(make_table, 0, {}, bounds, lambda at: format_position(1, 1, at))
    window, received, batches = Window(), copy_data(payloads), []

    while received:
        room = window.room()
        room[: len(received[:bite])] = received[:bite]
        window.received(len(received[:bite]))
        received = received[bite:]
        window.cut()
        more, consumed = taker.take(window.frames())
        window.consume(consumed)
        batches += more

    assert not len(window)
    assert sum(batch.rows for batch in batches) == len(expected)
    assert taker.reached == lsn - 5
    by_table: dict[str, list[Any]] = {}
    for changes in (changes for batch in batches for changes in batch.changes):
        by_table.setdefault(changes.table.name, []).extend(seen(changes))
    for name, found in by_table.items():
        mine = [e for e in expected if f"t{int.from_bytes(e.message[1:5], 'big')}" == name]
        assert found == [(e.operation, list(e.new), None if e.old is None else list(e.old)) for e in mine]


def mutate(rng: random.Random, valid: Sequence[bytes]) -> bytes:
    """Damage a message: change, remove, repeat or add bytes."""
    content = bytearray(rng.choice(valid))
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(content) + 1)
        match rng.randrange(5):
            case 0 if at < len(content):
                content[at] = rng.randrange(256)
            case 1:
                del content[at : at + rng.randrange(1, 5)]
            case 2:
                content[at:at] = rng.randbytes(rng.randrange(1, 5))
            case 3:
                content[at:at] = content[at : at + rng.randrange(8)]
            case _ if at < len(content):
                content[at] ^= 1 << rng.randrange(8)
    return bytes(content)


def valid_messages() -> list[bytes]:
    keyed, full = make_relation(["id", "v", "w"], oid=1), make_relation(["a", "b"], [], oid=2, identity="f")
    return [
        relation_message(keyed),
        relation_message(full),
        insert(1, ["1", "text", None]),
        update(1, ["1", b"u", ""]),
        update(1, ["2", "ü", b"u"], ["1", None, None]),
        delete(1, ["1", None, None]),
        insert(2, ["", None]),
        update(2, ["x", b"u"], ["y", "z"], b"O"),
        delete(2, ["x", "z"], b"O"),
        truncate(1, 2, options=1),
        begin(10),
        commit(10, 20),
        origin(),
        type_message(),
        logical_message(),
    ]


def survives(decode: Callable[[], object]) -> None:
    """Run a decoder on bytes of whatever kind: a result or a DataError, nothing else."""
    with contextlib.suppress(DataError):
        decode()


@pytest.mark.slow
@pytest.mark.unmeasured
def test_random_and_damaged_messages_raise_only_data_errors(record_property: Callable[[str, object], None]) -> None:
    seed = random.randrange(1 << 32)
    record_property("seed", seed)
    rng = random.Random(seed)
    valid = valid_messages()

    for _ in range(FUZZ_INPUTS * 9 // 10):
        damaged = mutate(rng, valid) if rng.random() < 0.8 else rng.choice(b"IUDTRYOM").to_bytes(1, "big")
        if len(damaged) == 1:
            damaged += bytes(3) + rng.choice([b"\1", b"\2"]) + rng.randbytes(rng.randrange(40))
        survives(lambda content=damaged: Decoder(make_table).decode(messages([*valid[:2], content])))  # type: ignore[misc]


@pytest.mark.slow
@pytest.mark.unmeasured
def test_damaged_streams_raise_only_data_errors(record_property: Callable[[str, object], None]) -> None:
    seed = random.randrange(1 << 32)
    record_property("seed", seed)
    rng = random.Random(seed)
    valid = valid_messages()
    whole = [begin(10), *valid[:10], *valid[12:], commit(10, 20)]
    payloads = [keepalive(5), *map(xlog, whole), keepalive(30)]

    def stream(content: bytes) -> None:
        window = Window()
        taker = BatchAssembler(make_table, 0, {}, Bounds(4, 100, 100), lambda at: format_position(1, 1, at))
        while content:
            count = rng.randrange(1, 600)
            room = window.room()
            room[: len(content[:count])] = content[:count]
            window.received(len(content[:count]))
            content = content[count:]
            window.cut()
            window.consume(taker.take(window.frames())[1])

    for _ in range(FUZZ_INPUTS // 100):
        survives(lambda: stream(mutate(rng, [copy_data(payloads)])))
        survives(lambda: stream(copy_data([mutate(rng, [p]) if rng.random() < 0.1 else p for p in payloads])))
    for _ in range(FUZZ_INPUTS // 10):
        damaged = [mutate(rng, [m]) if rng.random() < 0.3 else m for m in (begin(10), commit(10, 20), begin(30))]
        survives(lambda contents=damaged: boundaries(messages(contents), None))  # type: ignore[misc]


def test_frames_of_the_encoder_are_what_a_reader_sees() -> None:
    held = frames([keepalive(7), xlog(begin(1))])

    assert len(held) == 2
    assert held.buffer[held.start[0]] == ord("k")
