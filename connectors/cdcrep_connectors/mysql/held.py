"""Keeps batches until it is known whether they happened: in memory while they are few, then in a file.

The file has no name and goes with the process. It lies where `$TMPDIR` says.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from cdcrep.changes import Batch
from cdcrep.errors import SetupError


@dataclass
class Room:
    """Bytes in memory, as received, that several `Held` share; what comes beyond goes to files."""

    limit: int
    used: int = 0


class Held:
    """Batches of one transaction, in order; without a `room` all of them stay in memory."""

    def __init__(self, room: Room | None = None) -> None:
        self._room = room
        self._batches: list[Batch] = []
        self._rows: list[int] = []
        self._sizes: list[int] = []
        self._file: IO[bytes] | None = None
        self._places: list[int] = []
        """Where in the file the batches begin that are in it: the first ones."""

    def __len__(self) -> int:
        """Count the batches."""
        return len(self._sizes)

    @property
    def rows(self) -> int:
        """Count the rows."""
        return sum(self._rows)

    @property
    def size(self) -> int:
        """Count the bytes as received."""
        return sum(self._sizes)

    def append(self, batch: Batch) -> None:
        """Add a batch.

        Raises:
            SetupError: there is no room for the file.
        """
        self._batches.append(batch)
        self._rows.append(batch.rows)
        self._sizes.append(batch.size)
        if self._room is not None:
            self._room.used += batch.size
            if self._room.used > self._room.limit:
                self._write()

    def cut(self, length: int) -> None:
        """Forget the batches behind the first `length`."""
        in_file = len(self._places)
        self._release(sum(self._sizes[max(length, in_file) :]))
        del self._batches[max(length - in_file, 0) :], self._rows[length:], self._sizes[length:]
        if self._file is not None and length < in_file:
            self._file.truncate(self._places[length])
            del self._places[length:]

    def drain(self) -> Iterator[Batch]:
        """Yield the batches, one at a time from the file, and forget them."""
        places, file = self._places, self._file
        batches, sizes = self._batches, self._sizes[len(places) :]
        self._batches, self._rows, self._sizes, self._places, self._file = [], [], [], [], None
        if file is not None:
            with file:
                for place in places:
                    file.seek(place)
                    yield pickle.load(file)  # noqa: S301 - written by `_write`
        for batch, size in zip(batches, sizes, strict=True):
            self._release(size)
            yield batch

    def close(self) -> None:
        """Forget all of them."""
        self.cut(0)
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self) -> None:
        """Move what is in memory to the file."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="cdcrep-")  # noqa: SIM115 - closed by `close` and `drain`
            for batch in self._batches:
                self._places.append(self._file.seek(0, os.SEEK_END))
                pickle.dump(batch, self._file, protocol=pickle.HIGHEST_PROTOCOL)
            self._file.flush()
        except OSError as error:
            raise SetupError(
                f"a prepared XA transaction does not fit into {tempfile.gettempdir()}: {error.strerror}",
                hint="set TMPDIR to a directory with more room, or XA COMMIT or XA ROLLBACK what XA RECOVER names",
            ) from error
        self._release(sum(self._sizes[len(self._sizes) - len(self._batches) :]))
        self._batches = []

    def _release(self, size: int) -> None:
        if self._room is not None:
            self._room.used -= size
