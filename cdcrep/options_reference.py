"""Every option with its default and its line of documentation, for `cdcrep init` and docs/configuration.md.

`python -m cdcrep.options_reference docs/configuration.md` brings the tables of that page up to date.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ByteSize
from pydantic.fields import FieldInfo

from cdcrep.config import known_options
from cdcrep.connector import find_sink, find_source
from cdcrep.settings import CheckpointInterval, Settings, Tables

PASSWORD_FILE_TEXT: Final = "File that holds the password alone, mode 0600; relative to the configuration file."  # noqa: S105 - documentation

CONNECTORS: Final = (
    ("source", "postgresql"),
    ("source", "mysql"),
    ("target", "duckdb"),
    ("target", "postgresql"),
    ("target", "mysql"),
)
"""The sections of the page, by the schemes that their connectors are found under."""

_BLOCK: Final = re.compile(r"(<!-- options: (?P<which>[^>]*?) -->\n).*?(<!-- end of options -->)", re.DOTALL)


@dataclass(frozen=True)
class Option:
    """One option as documentation shows it."""

    name: str
    default: str | None
    """As TOML writes it; None: the option has to be given; empty: not set."""
    text: str


def settings_options() -> list[Option]:
    """List the options at the top of the file."""
    return [_option(name, field) for name, field in Settings.model_fields.items() if name not in _SECTIONS]


def section_options(model: type[BaseModel]) -> list[Option]:
    """List the options of a section that the engine knows."""
    return [_option(name, field) for name, field in model.model_fields.items()]


def connector_options(connector: type[Any]) -> list[Option]:
    """List the options of a connector's section, `password_file` included."""
    return [
        Option(name, "", PASSWORD_FILE_TEXT) if field is None else _option(name, field)
        for name, field in known_options(connector).items()
    ]


def toml(value: Any) -> str:
    """Write a default as TOML; None is empty text."""
    if value is None:
        return ""
    if isinstance(value, BaseModel):
        inside = ", ".join(f"{name} = {toml(getattr(value, name))}" for name in type(value).model_fields)
        return f"{{ {inside} }}"
    if isinstance(value, ByteSize):
        return f'"{value >> 20}MiB"' if value % (1 << 20) == 0 else str(int(value))
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value if isinstance(value, bool | int | float) else str(value), ensure_ascii=False)


def with_tables(page: str) -> str:
    """Return a page with the blocks between its option marks written anew."""
    return _BLOCK.sub(lambda match: match.group(1) + "\n".join(_block(match["which"])) + "\n" + match.group(3), page)


def _block(which: str) -> Iterator[str]:
    role, _, scheme = which.partition(" ")
    options: Sequence[Option]
    if which == "top":
        options = settings_options()
    elif which == "tables":
        options = section_options(Tables)
    elif which == "checkpoint_interval":
        options = section_options(CheckpointInterval)
    else:
        options = connector_options((find_source if role == "source" else find_sink)(f"{scheme}:"))
    yield "| Option | Default | |"
    yield "|---|---|---|"
    for option in options:
        default = "required" if option.default is None else f"`{option.default}`" if option.default else "not set"
        text = option.text.replace("|", "\\|")
        yield f"| `{option.name}` | {default} | {text} |"


def _option(name: str, field: FieldInfo) -> Option:
    default = None if field.is_required() else toml(field.get_default(call_default_factory=True))
    return Option(field.alias or name, default, " ".join((field.description or "").split()))


_SECTIONS: Final = frozenset({"source", "target", "tables"})


if __name__ == "__main__":
    page_path = Path(sys.argv[1])
    page_path.write_text(with_tables(page_path.read_text()))
