"""The server, and its connections, whose requests come in time: uvicorn bounds how many there are, and not how long
one may take.

A connection is cut that does not send the head of a request within `LONGEST_HEAD_S`, or goes on sending a body after
its request was refused. How slowly a body may come that is read is decided in `guard.bounded`.
"""

import asyncio
import socket
from collections.abc import Callable

import h11  # pyright: ignore[reportMissingImports]
import uvicorn  # pyright: ignore[reportMissingImports]
from uvicorn.protocols.http.h11_impl import H11Protocol  # pyright: ignore[reportMissingImports]

LONGEST_HEAD_S = 10.0  # seconds; a browser sends a head in one piece


class Server(uvicorn.Server):
    """A server that ends the work behind its answers before it waits for them, which could take a minute.

    Args:
        end: does so.
    """

    def __init__(self, config: uvicorn.Config, end: Callable[[], None]) -> None:
        super().__init__(config)
        self.end = end

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer the requests that are there, and no more."""
        self.end()
        await super().shutdown(sockets)


class TimedProtocol(H11Protocol):
    """HTTP of uvicorn, with a time limit for what no route reads."""

    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A browser has connected."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """It has sent something."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """It was answered."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has left."""
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Start the limit when a head, or a body that nobody reads, is due; end it when it is there."""
        answered = self.cycle is not None and self.cycle.response_complete
        due = self.conn.their_state is h11.IDLE or (answered and self.conn.their_state is h11.SEND_BODY)
        if not due or self.transport.is_closing():
            self._unwatch()
        elif self._limit is None:
            self._limit = self.loop.call_later(LONGEST_HEAD_S, self.transport.abort)

    def _unwatch(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
