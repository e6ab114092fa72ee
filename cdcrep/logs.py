"""Log lines: as text or JSON, without secrets, and no reason to stop when nobody reads them."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, MutableMapping
from typing import Any, Literal, TextIO

import structlog

from cdcrep.redaction import redact

LogFormat = Literal["text", "json"]
Write = Callable[[str], None]


class Surviving:
    """A text stream whose reader may be gone: what cannot be written is dropped, replication goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write if possible."""
        try:
            return self._stream.write(text)
        # Closed pipe, full disk; ValueError: closed on our side, UnicodeEncodeError included.
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        """Flush if possible."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return

    def __getattr__(self, name: str) -> Any:
        """Be the stream in everything else (`isatty`, `encoding`)."""
        return getattr(self._stream, name)


def configure(write: Write, *, log_format: LogFormat = "text", verbose: bool = False) -> None:
    """Send the log lines of the whole process, drivers' included, to `write`, one string without line end each."""
    level = logging.DEBUG if verbose else logging.INFO
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            without_secrets,
            _as_json if log_format == "json" else _as_text,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(write),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_Forward()]
    # The drivers' own chatter below warnings repeats statements, which may hold values.
    root.setLevel(logging.WARNING)
    threading.excepthook = _log_dying_thread


def to_stream(stream: TextIO) -> Write:
    """Make a `write` for `configure` of a stream; every line is flushed."""
    lock = threading.Lock()
    surviving = Surviving(stream)

    def write(line: str) -> None:
        with lock:
            surviving.write(line + "\n")
            surviving.flush()

    return write


def without_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Redact every string of an event, however deep it stands."""
    return {key: _redacted(value) for key, value in event.items()}


def _redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact(str(value))


def _as_json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    return json.dumps({"timestamp": event.pop("timestamp", None), "level": event.pop("level", None), **event})


def _as_text(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    time, level, message = (str(event.pop(key, "")) for key in ("timestamp", "level", "event"))
    traceback = event.pop("exception", None)
    pairs = "".join(f" {key}={_quoted(value)}" for key, value in event.items() if value is not None)
    # One event is one line: a message cannot forge another one.
    line = f"{time} {level:<7} {' '.join(message.splitlines())}{pairs}"
    return f"{line}\n{traceback}" if traceback else line


def _quoted(value: Any) -> str:
    text = str(value)
    plain = text and text.isprintable() and not any(character in ' "=' for character in text)
    return text if plain else json.dumps(text, ensure_ascii=False)


class _Lines:
    """What structlog calls with a rendered line."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def msg(self, line: str) -> None:
        self._write(line)

    debug = info = warning = error = critical = log = msg


class _Forward(logging.Handler):
    """Sends the standard library's log records the same way."""

    def emit(self, record: logging.LogRecord) -> None:
        """Forward one record."""
        structlog.get_logger().log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


def _log_dying_thread(dying: threading.ExceptHookArgs) -> None:
    if dying.exc_value is not None:
        name = dying.thread.name if dying.thread else "?"
        structlog.get_logger().error("thread died", thread=name, exc_info=dying.exc_value)
