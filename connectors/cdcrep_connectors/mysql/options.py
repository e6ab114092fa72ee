"""What a user may set in `[source]` and `[target]` for a MySQL or MariaDB server."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cdcrep_connectors.mysql.types import ImpossibleDates

URL_SCHEMES = ("mysql://", "mariadb://")


class ServerOptions(BaseModel):
    """How to reach a MySQL or MariaDB server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(
        description="mysql://user@host:port/database, or mariadb://; after '?' may follow ssl-mode, ssl-ca, ssl-cert, "
        "ssl-key and socket."
    )
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
            raise ValueError("a MySQL URL begins with mysql:// or mariadb://")
        return url

    def __repr__(self) -> str:
        """Show the class only: the URL may hold a password."""
        return f"{type(self).__name__}(...)"

    __str__ = __repr__


class SourceOptions(ServerOptions):
    """A MySQL or MariaDB server to replicate from."""

    server_id: int | None = Field(
        default=None,
        ge=1,
        le=2**32 - 1,
        description="Number under which the server knows this replica, unlike that of any other; by default random.",
    )
    impossible_dates: ImpossibleDates = Field(
        default=ImpossibleDates.REFUSE,
        description="What becomes of dates that no calendar has, such as 0000-00-00 and 2024-02-31: refuse stops, "
        "null counts them, text carries all dates and times with dates as text.",
    )
    chunk_bytes: int = Field(
        default=64 << 20, ge=1 << 20, description="Table bytes that are copied in one target transaction."
    )
    statement_timeout: float = Field(
        default=30.0,
        ge=0,
        description="Seconds after which a statement at the source is given up, copying excepted; 0: never.",
    )
    lock_timeout: float = Field(default=5.0, gt=0, description="Seconds to wait for a lock at the source.")
