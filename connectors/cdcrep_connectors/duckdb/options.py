"""What the configuration says about a DuckDB file."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

PREFIX = "duckdb:///"


class DuckDBOptions(BaseModel):
    """Options of the `[target]` section for DuckDB."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    url: str
    """`duckdb:////absolute/path.duckdb` or `duckdb:///relative/path.duckdb`."""
    memory_limit: str = "auto"
    """Most memory for DuckDB's buffers, such as `512MB`; `auto`: 64 MB, 9 bytes per row of large tables,
    and more where wide rows need it, up to a quarter of the machine's memory."""
    threads: int = Field(2, ge=1)
    """Threads of DuckDB, shared by applying, loading and queries."""
    temp_directory: str = ""
    """Where DuckDB puts what exceeds the memory limit; empty: beside the file, with `.tmp` added to its name."""
    checkpoint_threshold: str = "64MB"
    """Size of DuckDB's write-ahead log at which it is written into the file; commits wait meanwhile."""
    hold_file: bool = True
    """False: let go of the file when idle for `idle_seconds`, so that other programs can open it in between."""
    idle_seconds: float = Field(1.0, gt=0)
    """How long to be idle before letting go of the file."""
    as_text: tuple[str, ...] = ()
    """Columns to keep in the source's text form: `schema.table.column`, shell patterns; set before the first copy."""

    @field_validator("url")
    @classmethod
    def _names_a_file(cls, url: str) -> str:
        if not url.startswith(PREFIX) or not url.removeprefix(PREFIX).strip("/"):
            raise ValueError("write duckdb:////absolute/path.duckdb or duckdb:///relative/path.duckdb")
        return url

    @property
    def path(self) -> Path:
        """The database file."""
        return Path(self.url.removeprefix(PREFIX))

    @property
    def spill_directory(self) -> Path:
        """The directory for what exceeds the memory limit."""
        return Path(self.temp_directory) if self.temp_directory else Path(f"{self.path}.tmp")
