"""The engine over databases in memory: first copy, following, retries, stops."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal
from uuid import uuid4

import pytest

from cdcrep.connector import Checkpoint, Copied, OnExisting, Pipeline, Sink, Source
from cdcrep.errors import CdcrepError, DivergedError, SetupError, TransientError
from cdcrep.position import Position
from cdcrep.selection import Selection
from cdcrep.supervise import State, Supervisor
from cdcrep.table import Column, ColumnType, Kind, Table, TableId
from cdcrep.testing.memory import Delete, Insert, MemorySink, MemorySource, SourceDatabase, TargetDatabase, Update
from tests.servers.waiting import DEADLINE_SECONDS, wait_until

TEXT = ColumnType(Kind.TEXT, "text")
ORDERS = Table("public", "orders", (Column("id", TEXT, nullable=False), Column("note", TEXT)), ("id",), "memory")
EVENTS = Table("public", "events", (Column("what", TEXT),), (), "memory")


@dataclass
class Recorded:
    """Listens to a pipeline and remembers."""

    states: list[str] = field(default_factory=list)
    retries: list[int] = field(default_factory=list)
    finished_copies: int = 0

    def state(self, state: str) -> None:
        self.states.append(state)

    def note(self, message: str) -> None:
        pass

    def copy_started(self, tables: object) -> None:
        pass

    def copy_progress(self, table: TableId, rows: int, size: int) -> None:
        pass

    def copy_finished(self) -> None:
        self.finished_copies += 1

    def applied(self, *figures: object) -> None:
        pass

    def retry(self, error: CdcrepError, attempt: int, wait_seconds: float) -> None:
        self.retries.append(attempt)


@dataclass
class Shop:
    """A source and a target of this test's own, and the configuration between them."""

    name: str = field(default_factory=lambda: uuid4().hex)
    max_retries: int = 3
    include: tuple[str, ...] = ("public.*",)
    on_existing: OnExisting = "refuse"

    def __post_init__(self) -> None:
        self.source.create(ORDERS)
        self.source.create(EVENTS)
        for number in range(20):
            self.source.commit(Insert("public.orders", {"id": str(number), "note": "old"}))
            self.source.commit(Insert("public.events", {"what": "created"}))

    @property
    def pipeline(self) -> Pipeline:
        return Pipeline("shop", Selection(self.include), on_existing=self.on_existing, heartbeat_seconds=0.05)

    @property
    def source(self) -> SourceDatabase:
        return SourceDatabase.at(f"memory:source-{self.name}")

    @property
    def target(self) -> TargetDatabase:
        return TargetDatabase.at(f"memory:target-{self.name}")

    def open_source(self) -> Source:
        return MemorySource(self.pipeline, MemorySource.Options(url=f"memory:source-{self.name}"))

    def open_sink(self) -> Sink:
        return MemorySink(self.pipeline, MemorySink.Options(url=f"memory:target-{self.name}"))

    def run(self, *, then_tear_down: bool = False) -> Recorded:
        """Replicate until current."""
        recorded = Recorded()
        Supervisor(self, events=recorded, until_current=True, then_tear_down=then_tear_down).run()
        return recorded

    def fail_apply(self, how: Literal["before commit", "after commit", "hang"], times: int = 1) -> None:
        """Make the next applies fail."""
        for further in range(1, times + 1):
            self.target.failures[self.target.commits + further] = how

    def assert_equal(self) -> None:
        for table in ("public.orders", "public.events"):
            assert sorted(self.target.rows(table)) == sorted(self.source.rows(table))


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_a_first_run_copies_and_becomes_current(shop: Shop) -> None:
    recorded = shop.run()

    shop.assert_equal()
    assert recorded.states == [State.STARTING, State.SNAPSHOTTING, State.STREAMING, State.STOPPED]
    assert recorded.finished_copies == 1


def test_a_later_run_follows_without_copying_again(shop: Shop) -> None:
    shop.run()
    shop.source.commit(Update("public.orders", {"id": "3"}, {"note": "new"}), Delete("public.orders", {"id": "4"}))

    recorded = shop.run()

    shop.assert_equal()
    assert State.SNAPSHOTTING not in recorded.states


def test_a_table_that_is_added_later_is_copied_while_the_rest_goes_on(shop: Shop) -> None:
    shop.include = ("public.orders",)
    shop.run()
    shop.source.commit(Insert("public.orders", {"id": "x", "note": None}), Insert("public.events", {"what": "x"}))
    shop.include = ("public.*",)

    shop.run()

    shop.assert_equal()


def test_a_table_that_was_away_is_not_taken_for_copied(shop: Shop) -> None:
    shop.run()
    shop.include = ("public.orders",)
    shop.run()
    shop.source.commit(Insert("public.events", {"what": "missed"}))
    shop.include = ("public.*",)

    with pytest.raises(SetupError, match="events"):
        shop.run()


def someone_elses_rows(shop: Shop, table: Table) -> None:
    """Put a table with a row into the target that no copy has written."""
    with shop.target.transaction() as transaction:
        transaction.create(table.id, [column.name for column in table.columns], table.key)
        values: dict[str, str | None] = {column.name: "theirs" for column in table.columns}
        if table.key:
            transaction.put(shop.target.tables[table.id], ("theirs",), values)
        else:
            transaction.count(shop.target.tables[table.id], ("theirs",), 1)


def test_a_first_start_that_is_refused_leaves_both_sides_as_they_were(shop: Shop) -> None:
    someone_elses_rows(shop, ORDERS)

    with pytest.raises(SetupError, match="holds rows"):
        shop.run()

    assert (shop.target.books, shop.source.slots) == ({}, {})


def test_a_start_that_is_refused_does_not_stop_the_process_that_runs(shop: Shop) -> None:
    shop.include = ("public.orders",)
    shop.run()
    running = shop.open_sink().open()
    someone_elses_rows(shop, EVENTS)
    shop.include = ("public.*",)

    with pytest.raises(SetupError, match="holds rows"):
        shop.run()

    assert shop.open_sink().status()["epoch"] == running.epoch


def test_a_table_that_was_dropped_in_the_target_is_copied_again(shop: Shop) -> None:
    shop.run()
    shop.target.drop("public.orders")
    shop.source.commit(Insert("public.orders", {"id": "new", "note": "new"}), Insert("public.events", {"what": "new"}))

    recorded = shop.run()

    shop.assert_equal()
    assert recorded.finished_copies == 1


def test_an_unknown_outcome_is_decided_by_the_position_in_the_target(shop: Shop) -> None:
    shop.run()
    shop.source.commit(Insert("public.events", {"what": "once"}))
    shop.fail_apply("after commit")

    recorded = shop.run()

    shop.assert_equal()
    assert recorded.retries == [1]


def test_failures_without_progress_end_after_max_retries(shop: Shop) -> None:
    shop.run()
    shop.source.commit(Insert("public.events", {"what": "once"}))
    shop.max_retries = 1
    shop.fail_apply("before commit", times=2)
    supervisor = Supervisor(shop, events=Recorded(), until_current=True)

    with pytest.raises(TransientError):
        supervisor.run()

    assert supervisor.state is State.FAILED
    assert supervisor.live()["last_error"]


def test_progress_between_failures_starts_the_count_anew(shop: Shop) -> None:
    shop.run()
    shop.max_retries = 1
    for number in range(4):
        shop.source.commit(Insert("public.events", {"what": str(number)}))
        shop.source.failures.append(1)

    recorded = shop.run()

    shop.assert_equal()
    assert set(recorded.retries) == {1}


def test_a_second_process_stops_the_first(shop: Shop) -> None:
    shop.run()
    supervisor = Supervisor(shop, events=Recorded())
    failures: list[BaseException] = []

    def run() -> None:
        try:
            supervisor.run()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: supervisor.state is State.STREAMING)
    shop.open_sink().open()
    shop.source.commit(Insert("public.events", {"what": "fenced"}))
    thread.join(timeout=DEADLINE_SECONDS)

    assert isinstance(failures[0], DivergedError)


def test_a_process_that_was_replaced_while_it_was_away_does_not_come_back(shop: Shop) -> None:
    shop.run()
    supervisor = Supervisor(shop, events=Recorded())
    failures: list[BaseException] = []

    def run() -> None:
        try:
            supervisor.run()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: supervisor.state is State.STREAMING)
    successor = shop.open_sink().open()
    shop.fail_apply("before commit")
    shop.source.commit(Insert("public.events", {"what": "seen by both"}))
    thread.join(timeout=DEADLINE_SECONDS)
    supervisor.stop()
    thread.join(timeout=DEADLINE_SECONDS)

    assert [type(failure) for failure in failures] == [DivergedError]
    assert shop.open_sink().status()["epoch"] == successor.epoch


class DeafSink(MemorySink):
    """A sink that takes the row and does not hear that it did, `openings` times."""

    openings = 0

    def open(self, owner: str = "", replacing: int | None = None) -> Checkpoint:
        checkpoint = super().open(owner, replacing)
        if DeafSink.openings:
            DeafSink.openings -= 1
            self.heard_nothing()
            raise TransientError("the target was lost")
        return checkpoint

    def heard_nothing(self) -> None:
        """Do nothing more."""


@pytest.mark.parametrize("openings", [1, 2])
def test_an_opening_that_failed_after_it_took_the_row_is_recognised(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, openings: int
) -> None:
    shop.run()
    monkeypatch.setattr(f"{__name__}.MemorySink", DeafSink)
    monkeypatch.setattr(DeafSink, "openings", openings)
    shop.source.commit(Insert("public.events", {"what": "later"}))

    recorded = shop.run()

    shop.assert_equal()
    assert recorded.retries == list(range(1, openings + 1))


def test_a_process_that_was_replaced_after_half_an_opening_does_not_come_back(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run()
    successor = MemorySink(shop.pipeline, MemorySink.Options(url=f"memory:target-{shop.name}"))
    monkeypatch.setattr(f"{__name__}.MemorySink", DeafSink)
    monkeypatch.setattr(DeafSink, "openings", 1)
    monkeypatch.setattr(DeafSink, "heard_nothing", lambda _: successor.open("successor"))

    with pytest.raises(DivergedError):
        shop.run()

    assert successor.status()["owner"] == "successor"


def test_stop_ends_a_stream_that_waits(shop: Shop) -> None:
    supervisor = Supervisor(shop, events=Recorded())
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    wait_until(lambda: supervisor.state is State.STREAMING)

    supervisor.stop()
    thread.join(timeout=DEADLINE_SECONDS)

    assert supervisor.state is State.STOPPED


def test_stop_rolls_back_an_apply_that_hangs(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdcrep.supervise.CANCEL_AFTER_SECONDS", 0.05)
    shop.run()
    shop.source.commit(Insert("public.events", {"what": "hangs"}))
    shop.fail_apply("hang")
    supervisor = Supervisor(shop, events=Recorded())
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    wait_until(lambda: supervisor.state is State.STREAMING)

    supervisor.stop()
    thread.join(timeout=DEADLINE_SECONDS)

    assert supervisor.state is State.STOPPED
    assert ("hangs",) not in shop.target.rows("public.events")


def test_a_one_shot_copy_leaves_no_slot_and_no_checkpoint(shop: Shop) -> None:
    shop.run(then_tear_down=True)

    shop.assert_equal()
    assert not shop.source.slots
    assert shop.open_sink().open().position is None


def test_a_failure_after_a_one_shot_copy_does_not_copy_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    tear_down, failures = MemorySource.tear_down, [TransientError("the source was lost")]

    def failing_once(source: MemorySource) -> list[str]:
        if failures:
            raise failures.pop()
        return tear_down(source)

    monkeypatch.setattr(MemorySource, "tear_down", failing_once)

    recorded = shop.run(then_tear_down=True)

    assert (recorded.retries, recorded.finished_copies) == ([1], 1)
    assert not shop.source.slots
    assert shop.open_sink().status() == {}


def test_nothing_is_confirmed_that_the_target_does_not_hold(shop: Shop) -> None:
    shop.run()
    before = list(shop.source.slots["shop"].confirmations)
    shop.source.commit(Insert("public.events", {"what": "not durable"}))
    shop.max_retries = 0
    shop.fail_apply("before commit")

    with pytest.raises(TransientError):
        shop.run()

    assert shop.source.slots["shop"].confirmations == before


def test_a_replaced_source_is_refused(shop: Shop) -> None:
    shop.run()
    shop.source.replace()

    with pytest.raises(DivergedError):
        shop.run()


def interrupt_a_copy(shop: Shop) -> None:
    """Leave one durable chunk of every table in the target."""
    source, sink = shop.open_source(), shop.open_sink()
    sink.open()
    tables = source.tables()
    sink.prepare(tables)
    snapshot = source.start()
    copied = Copied(snapshot.position, snapshot=snapshot.note(tables[0]))
    sink.register({table.id: copied for table in tables}, snapshot.position)
    for table in tables:
        chunk = snapshot.chunks(table, None)[0]
        sink.loader().load(chunk, snapshot.read(chunk))


def test_an_interrupted_copy_goes_on_and_converges(shop: Shop) -> None:
    interrupt_a_copy(shop)
    for number in range(0, 20, 2):
        shop.source.commit(
            Update("public.orders", {"id": str(number)}, {"note": "newer"}), Insert("public.events", {"what": "more"})
        )
    shop.source.commit(Delete("public.orders", {"id": "1"}), Update("public.orders", {"id": "3"}, {"id": "33"}))

    shop.run()

    shop.assert_equal()


@pytest.mark.parametrize("table", [ORDERS, EVENTS], ids=["with a key", "without a key"])
def test_an_interrupted_copy_beside_other_rows_does_not_take_these_with_it(shop: Shop, table: Table) -> None:
    shop.on_existing, shop.include = "keep", (str(table.id),)
    interrupt_a_copy(shop)
    before = shop.target.rows(str(table.id))

    with pytest.raises(SetupError, match="cannot be completed beside other rows"):
        shop.run()

    assert shop.target.rows(str(table.id)) == before


def test_positions_of_a_run_are_shown(shop: Shop) -> None:
    supervisor = Supervisor(shop, events=Recorded(), until_current=True)

    supervisor.run()

    assert supervisor.live()["position"] == Position(shop.source.position)
