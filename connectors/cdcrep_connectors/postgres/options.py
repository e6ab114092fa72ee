"""What a user may set in `[source]` and `[target]` for a PostgreSQL server."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

URL_SCHEMES = ("postgresql://", "postgres://")


class ServerOptions(BaseModel):
    """How to reach a PostgreSQL server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="postgresql://user@host:port/database; libpq's parameters may follow after '?'.")
    password_file: Path | None = Field(
        default=None,
        description="File that holds the password: a regular file of this user or root with mode 0600 or less.",
    )
    insecure: bool = Field(
        default=False,
        description="Allow connections to other machines that are not encrypted or not verified.",
    )
    connect_timeout: int = Field(default=10, ge=2, description="Seconds to wait for a connection.")

    @field_validator("url")
    @classmethod
    def _check_scheme(cls, url: str) -> str:
        if not url.startswith(URL_SCHEMES):
            raise ValueError("a PostgreSQL URL begins with postgresql://")
        return url

    def __repr__(self) -> str:
        """Show the class only: the URL may hold a password."""
        return f"{type(self).__name__}(...)"

    __str__ = __repr__


class SourceOptions(ServerOptions):
    """A PostgreSQL server to replicate from."""

    slot: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9_]{1,63}$",
        description="Name of the replication slot; by default made of the pipeline's name.",
    )
    publication: str | None = Field(default=None, description="Name of the publication; by default like the slot's.")
    create_publication: bool = Field(
        default=True,
        description="Create the publication and keep it equal to the configured tables; false: it is given.",
    )
    failover: bool = Field(
        default=False, description="Keep the slot on standby servers in step (PostgreSQL 17 and later)."
    )
    removed_partitions: Literal["stop", "keep"] = Field(
        default="stop",
        description="When a partition is dropped, detached or truncated, which is not sent: stop, or keep its rows in "
        "the target and go on.",
    )
    chunk_bytes: int = Field(
        default=64 << 20, ge=1 << 20, description="Table bytes that are copied in one target transaction."
    )
    slot_timeout: float = Field(
        default=60.0, gt=0, description="Seconds to wait for older transactions to end while the slot is created."
    )
    statement_timeout: float = Field(
        default=30.0,
        ge=0,
        description="Seconds after which a statement at the source is given up, copying excepted; 0: never.",
    )
    lock_timeout: float = Field(default=5.0, gt=0, description="Seconds to wait for a lock at the source.")
