"""One pipeline's configuration: a TOML file or command-line arguments, checked before anything is touched."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, SecretStr, ValidationError

from cdcrep.complaints import explained, known_names, unknown_key
from cdcrep.connector import Pipeline, Sink, Source, find_sink, find_source
from cdcrep.errors import ConfigError
from cdcrep.redaction import conceal_url, redact, without_credentials
from cdcrep.references import read_password, substitute, with_password
from cdcrep.selection import Selection
from cdcrep.settings import Settings, Tables

PASSWORD_FILE: Final = "password_file"  # noqa: S105 - an option's name
"""Accepted in [source] and [target] of every connector that has no option of this name itself."""


@dataclass(frozen=True, repr=False)
class Config:
    """A checked configuration and the connectors it names; making one connects to nothing."""

    settings: Settings
    source_type: type[Any]
    source_options: BaseModel
    sink_type: type[Any]
    sink_options: BaseModel
    path: Path | None = None
    """The file it came from."""
    warnings: tuple[str, ...] = ()
    """What the user should know, one sentence each."""

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.settings.name

    @property
    def max_retries(self) -> int:
        """Failures without progress after which supervision gives up."""
        return self.settings.max_retries

    @property
    def source_url(self) -> str:
        """The source's URL, fit for printing."""
        return redact(_url(self.source_options))

    @property
    def target_url(self) -> str:
        """The target's URL, fit for printing."""
        return redact(_url(self.sink_options))

    @property
    def target_identity(self) -> str:
        """What names the target, whoever connects to it."""
        return _identity(self.sink_options)

    @cached_property
    def pipeline(self) -> Pipeline:
        """What both connectors need to know."""
        settings = self.settings
        return Pipeline(
            name=settings.name,
            tables=Selection(tuple(settings.tables.include), tuple(settings.tables.exclude)),
            source=_identity(self.source_options),
            on_existing=settings.tables.on_existing,
            allow_lossy=settings.tables.allow_lossy,
            transaction_timeout=settings.transaction_timeout,
            heartbeat_seconds=settings.checkpoint_interval.seconds,
            checkpoint_rows=settings.checkpoint_interval.rows,
            max_batch_rows=settings.max_batch_rows,
            max_batch_bytes=int(settings.max_batch_bytes),
            copy_workers=settings.copy_workers,
        )

    def open_source(self) -> Source:
        """Construct the source; it connects when it is used."""
        source: Source = self.source_type(self.pipeline, self.source_options)
        return source

    def open_sink(self) -> Sink:
        """Construct the sink; it connects when it is used."""
        sink: Sink = self.sink_type(self.pipeline, self.sink_options)
        return sink


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check a configuration file; `overrides` are `key=value` texts, see `override`.

    Raises:
        ConfigError: names the file and the key, and for an unknown key the nearest known one.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            document = tomllib.load(file)
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}", hint="cdcrep init writes a configuration file to start from"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {redact(str(error))}") from error
    warnings = []
    if mode & 0o077 and any(_has_password(document.get(section)) for section in ("source", "target")):
        warnings.append(
            f"{path} contains a password and may be read by other users (mode {stat.S_IMODE(mode):04o}): "
            f"chmod 600 {path}"
        )
    warnings += _overridden(document, overrides)
    return _check(document, str(path), path, warnings)


def from_arguments(
    source_url: str,
    target_url: str,
    *,
    include: Sequence[str],
    exclude: Sequence[str] = (),
    name: str | None = None,
    overrides: Sequence[str] = (),
) -> Config:
    """Check a configuration given as command-line arguments.

    Raises:
        ConfigError: like `load`.
    """
    warnings = []
    for role, url in (("source", source_url), ("target", target_url)):
        if conceal_url(url):
            warnings.append(_visible(f"the {role} URL"))
    document: dict[str, Any] = {
        "name": name or "unnamed",
        "source": {"url": source_url},
        "target": {"url": target_url},
        "tables": {"include": list(include), "exclude": list(exclude)},
    }
    warnings += _overridden(document, overrides)
    config = _check(document, "command line", None, warnings)
    if name is not None or config.name != "unnamed":
        return config
    derived = derived_name(_identity(config.source_options), _identity(config.sink_options))
    return replace(config, settings=config.settings.model_copy(update={"name": derived}))


def override(document: dict[str, Any], text: str) -> None:
    """Set one option of a parsed document from `section.key=value`; a value that is no TOML is taken as a string."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {key}: no value", hint="write --set max_retries=5 or --set source.insecure=true")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    *sections, last = (part.strip() for part in key.split("."))
    for section in sections:
        document = document.setdefault(section, {})
        if not isinstance(document, dict):
            raise ConfigError(f"--set {key}: {section} is not a section")
    document[last] = parsed


def _overridden(document: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Set options; return warnings of the passwords among them."""
    for text in overrides:
        override(document, text)
    return [_visible(f"--set {text.partition('=')[0]}") for text in overrides if conceal_url(text.partition("=")[2])]


def _visible(what: str) -> str:
    return (
        f"{what} on the command line contains a password, which every user of this machine can see: "
        "use password_file in a configuration file (cdcrep init)"
    )


def derived_name(source: str, target: str) -> str:
    """Derive a pipeline's name from what it connects: the same two databases give the same name, valid for a slot."""
    database = re.sub(r"[^a-z0-9]+", "_", source.rpartition("/")[2].lower()).strip("_")
    digest = hashlib.sha256(f"{source}\n{target}".encode()).hexdigest()[:8]
    return f"{database[:40] or 'pipeline'}_{digest}"


def known_options(connector: type[Any]) -> dict[str, Any]:
    """Return a connector's option names and their pydantic fields (None: `password_file`, which `load` resolves)."""
    fields: dict[str, Any] = {(field.alias or name): field for name, field in connector.Options.model_fields.items()}
    # Options with a `path` are those of a file, which has no password.
    if not hasattr(connector.Options, "path"):
        fields.setdefault(PASSWORD_FILE, None)
    return fields


def _check(document: dict[str, Any], origin: str, path: Path | None, warnings: list[str]) -> Config:
    try:
        document = substitute(document, os.environ)
        for section in ("source", "target"):
            _conceal_section(document.get(section))
        settings = Settings.model_validate(document)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error.message}", hint=error.hint) from error
    except ValidationError as error:
        raise explained(error, origin, "", known_names(Settings)) from None
    _check_patterns(settings.tables, origin)
    folder = path.parent if path else Path()
    source_type, source_options = _options("source", settings.source, origin, folder)
    sink_type, sink_options = _options("target", settings.target, origin, folder)
    return Config(settings, source_type, source_options, sink_type, sink_options, path, tuple(warnings))


def _options(section: str, values: dict[str, Any], origin: str, folder: Path) -> tuple[type[Any], BaseModel]:
    """Find the connector of a section and let its own model check the options."""
    values = dict(values)
    url = values.get("url")
    if not isinstance(url, str) or ":" not in url:
        example = "postgresql://cdc@127.0.0.1:5432/shop"
        raise ConfigError(f"{origin}: [{section}] has no url that begins with a scheme", hint=f'url = "{example}"')
    try:
        connector = (find_source if section == "source" else find_sink)(url)
        known = known_options(connector)
        unknown = next((key for key in values if key not in known), None)
        if unknown is not None:
            raise unknown_key(unknown, section, {section: list(known), **known_names(Settings)})
        if PASSWORD_FILE in values:
            file = folder / str(values.pop(PASSWORD_FILE))
            password = read_password(file)
            values |= {"url": with_password(url, password)} if known[PASSWORD_FILE] is None else {PASSWORD_FILE: file}
        options: BaseModel = connector.Options.model_validate(values)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error.message}", hint=error.hint) from error
    except ValidationError as error:
        raise explained(error, origin, section, {}) from None
    return connector, options


def _check_patterns(tables: Tables, origin: str) -> None:
    for key, patterns in (("include", tables.include), ("exclude", tables.exclude)):
        for pattern in patterns:
            if "." not in pattern and "*" not in pattern:
                raise ConfigError(
                    f"{origin}: {key} in [tables] holds {pattern!r}, which names no schema",
                    hint=f'write schema.table, for example "public.{pattern}"',
                )


def _conceal_section(section: Any) -> None:
    if isinstance(section, dict) and isinstance(section.get("url"), str):
        conceal_url(section["url"])


def _has_password(section: Any) -> bool:
    if not isinstance(section, dict):
        return False
    url = section.get("url")
    # A password that comes from the environment is not in the file.
    return (isinstance(url, str) and "${" not in url and conceal_url(url)) or isinstance(section.get("password"), str)


def _url(options: BaseModel) -> str:
    url = getattr(options, "url", "")
    return url.get_secret_value() if isinstance(url, SecretStr) else str(url)


def _identity(options: BaseModel) -> str:
    """Name a database, whoever connects to it and from whichever directory."""
    path = getattr(options, "path", None)
    return str(path.absolute()) if isinstance(path, Path) else without_credentials(_url(options))
