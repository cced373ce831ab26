"""A TCP relay in front of a registry that makes it slow, as a far one is.

with relay(registry.host, delay=0.02) as host:      # 20 ms more for each request
with relay(registry.host, bytes_per_second=2000) as host:
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from typing import Any


@contextlib.contextmanager
def relay(host: str, *, delay: float = 0.0, bytes_per_second: float | None = None) -> Iterator[str]:
    """Listen on a free loopback port and pass everything on to ``host``; yields ``HOST:PORT``.

    Args:
        delay: seconds that each piece a client sends is held back; a request is one piece.
        bytes_per_second: limit for what the server sends, for each connection.
    """
    address, _, port = host.rpartition(":")
    loop = asyncio.new_event_loop()
    started = threading.Event()
    place: list[str] = []
    stop = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection(address, int(port))
        except OSError:
            writer.close()
            return
        await asyncio.gather(
            _pump(reader, up_writer, delay, None),
            _pump(up_reader, writer, 0.0, bytes_per_second),
        )

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        place.append(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        started.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=_run, args=(loop, main()))
    thread.start()
    started.wait()
    try:
        yield place[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    delay: float,
    bytes_per_second: float | None,
) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while data := await reader.read(512 if bytes_per_second else 65536):
            if delay:
                await asyncio.sleep(delay)
            if bytes_per_second:
                await asyncio.sleep(len(data) / bytes_per_second)
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.close()


def _run(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, None]) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()
