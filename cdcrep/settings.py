"""The options of a configuration file: names, defaults, limits and one line on each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, get_args

from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Field

from cdcrep.connector import OnExisting, Pipeline

NAME_PATTERN: Final = r"[a-z0-9_]{1,63}"


_CLOSED: Final = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Tables(BaseModel):
    """[tables]: what is replicated, and what may happen to the target's tables."""

    model_config = _CLOSED

    include: list[str] = Field(
        min_length=1, description="Tables to replicate: `schema.table`, with the shell patterns `*`, `?` and `[…]`."
    )
    exclude: list[str] = Field(default=[], description="Tables to leave out of those, written the same way.")
    on_existing: OnExisting = Field(
        default="refuse",
        description="What to do before the first copy with target tables that hold rows: `refuse` to start, `replace` "
        "the rows, or `keep` them beside the copied ones.",
    )
    allow_lossy: bool = Field(
        default=False, description="Consent to column types that the target can only hold with loss (docs/types.md)."
    )


class CheckpointInterval(BaseModel):
    """checkpoint_interval: the most that can be between two commits of the position."""

    model_config = _CLOSED

    rows: int = Field(
        default=Pipeline.checkpoint_rows, ge=1, description="Most changes that one commit of the position may cover."
    )
    seconds: float = Field(
        default=Pipeline.heartbeat_seconds,
        gt=0,
        le=3600,
        description="Longest time without a commit of the position while there is progress.",
    )


def _plain_seconds(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"seconds": value} if is_number else value


class Settings(BaseModel):
    """The shape of a configuration file. What [source] and [target] hold beside `url` is their connector's matter."""

    model_config = _CLOSED

    name: str = Field(
        pattern=f"^{NAME_PATTERN}$",
        description="The pipeline: key of its checkpoint row, default of slot and publication names. Lower-case "
        "letters, digits and `_`, at most 63; never changed once replication has begun.",
    )
    source: dict[str, Any] = Field(repr=False, description="The database to follow; options below.")
    target: dict[str, Any] = Field(repr=False, description="The database that holds the copy; options below.")
    tables: Tables = Field(description="What is replicated; options below.")
    max_retries: int = Field(
        default=3, ge=0, description="Failures in a row, without progress between them, after which `run` gives up."
    )
    transaction_timeout: float = Field(
        default=Pipeline.transaction_timeout,
        gt=0,
        description="Seconds; the statement and lock limit of the target's transactions.",
    )
    checkpoint_interval: Annotated[CheckpointInterval, BeforeValidator(_plain_seconds)] = Field(
        default=CheckpointInterval(),
        description="Most rows and seconds between two commits of the position, or seconds alone as a number. An idle "
        "pipeline commits after every transaction.",
    )
    max_batch_rows: int = Field(
        default=Pipeline.max_batch_rows, ge=1, description="Most changes held in memory as one batch."
    )
    max_batch_bytes: ByteSize = Field(
        default=ByteSize(Pipeline.max_batch_bytes),
        ge=64 << 10,
        description='Most bytes held in memory as one batch: a number or a text such as "64MiB", at least 64 KiB.',
    )
    copy_workers: int = Field(
        default=Pipeline.copy_workers, ge=1, le=64, description="Threads that copy rows during the first copy."
    )


def nested_models(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the fields of a model that are sections of their own."""
    for name, field in model.model_fields.items():
        for candidate in (field.annotation, *get_args(field.annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                yield name, candidate
