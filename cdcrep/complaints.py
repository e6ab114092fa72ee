"""What is wrong with a configuration, in one sentence that names the key and the nearest known one, never the value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from pydantic import BaseModel, ValidationError

from cdcrep.errors import ConfigError
from cdcrep.redaction import redact
from cdcrep.settings import nested_models


def explained(error: ValidationError, origin: str, section: str, known: Mapping[str, Sequence[str]]) -> ConfigError:
    """Turn pydantic's first complaint into one sentence; never with the value, which may be a secret."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    *path, key = [str(part) for part in (section, *first["loc"]) if part != ""] or [origin]
    if first["type"] == "extra_forbidden":
        unknown = unknown_key(key, ".".join(path), known)
        return ConfigError(f"{origin}: {unknown.message}", hint=unknown.hint)
    if first["type"] == "missing":
        what = f"section [{key}]" if key in {"source", "target", "tables"} and not path else key
        return ConfigError(f"{origin}: {what} is missing{_in_section(path)}", hint="cdcrep init shows every option")
    return ConfigError(f"{origin}: {key}{_in_section(path)}: {redact(first['msg'])}")


def unknown_key(key: str, section: str, known: Mapping[str, Sequence[str]]) -> ConfigError:
    """Name the nearest known key, or the section that the key belongs to."""
    message = f"unknown key {key!r}{_in_section([section] if section else [])}"
    candidates = known.get(section, ())
    elsewhere = next((other for other, names in known.items() if key in names and other != section), None)
    if elsewhere is not None:
        place = f"under [{elsewhere}]" if elsewhere else "at the top of the file, before the first section"
        return ConfigError(message, hint=f"{key} belongs {place}")
    nearest = get_close_matches(key, candidates, n=1)
    if nearest:
        return ConfigError(message, hint=f"did you mean {nearest[0]!r}?")
    for other, names in known.items():
        if nearest := get_close_matches(key, names, n=1):
            return ConfigError(message, hint=f"did you mean {nearest[0]!r}{_in_section([other] if other else [])}?")
    return ConfigError(message, hint=f"known keys: {', '.join(sorted(candidates))}")


def _in_section(path: Sequence[str]) -> str:
    return f" in [{'.'.join(path)}]" if path else ""


def known_names(model: type[BaseModel], section: str = "") -> dict[str, list[str]]:
    """List the keys of every section of a model: section name -> keys."""
    found = {section: list(model.model_fields)}
    for name, inner in nested_models(model):
        found |= known_names(inner, f"{section}.{name}" if section else name)
    return found
