"""A TCP proxy on 127.0.0.1 that breaks on command: faults between cdcrep and a real server.

The bytes of a live connection are never changed, reordered or lost, as TCP promises; what fails is the connection.
The proxy runs an event loop in a thread of its own; every public method may be called from any thread and has taken
effect when it returns.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import urlsplit

Answer = TypeVar("Answer")

CHUNK_BYTES: Final = 65536
CALL_SECONDS: Final = 10.0
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _Link:
    """One proxied connection: the client's and the server's stream."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    sent_tail: bytes = b""
    reply_is_lost: bool = False

    def reset(self) -> None:
        """Close both sides with RST; bytes not yet delivered are gone."""
        _reset(self.client)
        _reset(self.server)


@dataclass
class _Faults:
    """What is broken at the moment."""

    refuse: bool = False
    delay_seconds: float = 0.0
    reply_bytes_left: int | None = None
    lost_reply_to: bytes | None = None
    lost_request: bytes | None = None
    flowing: asyncio.Event = field(default_factory=asyncio.Event)


class FaultProxy:
    """Forwards connections to `host:port` and breaks them on command. Use it as a context manager."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.port = 0
        self.connections_seen = 0
        self._address = (host, port)
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._faults = _Faults()
        self._faults.flowing.set()
        self._closing = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()], name="fault-proxy")

    @classmethod
    def before(cls, url: str) -> FaultProxy:
        """Return a proxy in front of the server that a URL names."""
        parts = urlsplit(url)
        assert parts.port is not None
        return cls(parts.port, parts.hostname or "127.0.0.1")

    def url(self, url: str) -> str:
        """Return the URL with the proxy's address in place of the server's."""
        parts = urlsplit(url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self.port}").geturl()

    def cut(self) -> int:
        """Break every open connection now, with RST; return how many."""
        return self._call(self._cut)

    def cut_after(self, reply_bytes: int) -> None:
        """Break a connection in mid-message: after this many more bytes from the server, all connections together."""
        self._change(reply_bytes_left=reply_bytes)

    def drop_reply_to(self, request: bytes) -> None:
        """Pass on the next client message with these bytes, then break its connection instead of passing the reply.

        The outcome is known to the server alone: `drop_reply_to(b"COMMIT")` commits without telling the client. Holds
        for one connection; needs a connection without TLS.
        """
        self._change(lost_reply_to=request)

    def drop_request(self, request: bytes) -> None:
        """Break the connection that sends the next client message with these bytes, instead of passing it on.

        Holds for one connection; needs a connection without TLS, and a message that arrives in one piece.
        """
        self._change(lost_request=request)

    def hold(self) -> None:
        """Forward nothing more, in both directions, on open connections that look alive."""
        self._call(self._faults.flowing.clear)

    def release(self) -> None:
        """End `hold`."""
        self._call(self._faults.flowing.set)

    def refuse(self, refused: bool = True) -> None:
        """Answer new connections with RST; open ones live on."""
        self._change(refuse=refused)

    def delay(self, seconds: float) -> None:
        """Forward every chunk this much later, in both directions."""
        self._change(delay_seconds=seconds)

    def heal(self) -> None:
        """Return to a plain proxy; broken connections stay broken."""
        self._change(refuse=False, delay_seconds=0.0, reply_bytes_left=None, lost_reply_to=None, lost_request=None)
        self.release()

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(CALL_SECONDS):
            raise TimeoutError("the fault proxy did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(CALL_SECONDS)
        self._loop.close()

    def _call(self, action: Callable[[], Answer]) -> Answer:
        async def run() -> Answer:
            return action()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(CALL_SECONDS)

    def _change(self, **changes: bool | float | bytes | None) -> None:
        def change() -> None:
            for name, value in changes.items():
                setattr(self._faults, name, value)

        self._call(change)

    def _cut(self) -> int:
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    async def _serve(self) -> None:
        connections: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            try:
                await self._connect(reader, writer)
            finally:
                connections.discard(task)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._closing.wait()
        server.close()
        self._faults.flowing.set()
        self._cut()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _connect(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.connections_seen += 1
        if self._faults.refuse:
            _reset(client)
            return
        try:
            server_reader, server = await asyncio.open_connection(*self._address)
        except OSError:
            _reset(client)
            return
        link = _Link(client, server)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._forward_requests(client_reader, link), self._forward_replies(server_reader, link)
            )
        except OSError:
            link.reset()
        finally:
            self._links.discard(link)
            client.close()
            server.close()

    async def _forward_requests(self, reader: asyncio.StreamReader, link: _Link) -> None:
        while chunk := await self._read(reader):
            if self._faults.lost_request is not None and self._faults.lost_request in chunk:
                self._faults.lost_request = None
                link.reset()
                return
            awaited = self._faults.lost_reply_to
            if awaited is not None:
                # The tail finds bytes that two chunks share.
                seen = link.sent_tail + chunk
                link.sent_tail = seen[-len(awaited) :]
                if awaited in seen:
                    self._faults.lost_reply_to = None
                    link.reply_is_lost = True
            link.server.write(chunk)
            await link.server.drain()
        _end(link.server)

    async def _forward_replies(self, reader: asyncio.StreamReader, link: _Link) -> None:
        while chunk := await self._read(reader):
            if link.reply_is_lost:
                link.reset()
                return
            left = self._faults.reply_bytes_left
            if left is not None:
                link.client.write(chunk[:left])
                self._faults.reply_bytes_left = max(0, left - len(chunk))
                if left <= len(chunk):
                    self._faults.reply_bytes_left = None
                    await link.client.drain()
                    link.reset()
                    return
            else:
                link.client.write(chunk)
            await link.client.drain()
        _end(link.client)

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        chunk = await reader.read(CHUNK_BYTES)
        if self._faults.delay_seconds:
            await asyncio.sleep(self._faults.delay_seconds)
        await self._faults.flowing.wait()
        return chunk


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()


def _end(writer: asyncio.StreamWriter) -> None:
    if not writer.is_closing():
        writer.write_eof()
