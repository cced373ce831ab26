"""An HTTP proxy in front of a registry that counts, slows, limits and breaks what passes it.

    with faulty(registry.host, Faults(seed=3, reset=0.05)) as proxy:
        proxy.host                                # 127.0.0.1:PORT, to be used for the registry
        proxy.faults = Faults()                   # from here on all is well
        proxy.counts.of("PUT", "manifest")
        proxy.stop()                              # as a registry that restarts: the port refuses
        proxy.start()

Plain HTTP/1.1. Which request is hit follows from the seed, the request, and how often it came
before: not from the order in which a client's threads happen to ask.
"""

from __future__ import annotations

import contextlib
import random
import re
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.support.faultplan import (
    Broken,
    Faults,
    Kind,
    Limit,
    Limiter,
    Trouble,
    downwards,
    kind_of,
    upwards,
)
from tests.support.httpwire import Answer, Gone, Head, Side, simple_answer

_UPLOAD: Final = re.compile(r"(/blobs/uploads/)[^/]+$")
_UNAVAILABLE: Final = (500, 502, 503, 504)
_RESET: Final = struct.pack("ii", 1, 0)
_BACKLOG: Final = 256
_START_SECONDS: Final = 5.0


@dataclass(slots=True)
class Exchange:
    """One request and what became of it.

    Attributes:
        target: path and query, as asked for.
        status: of the answer that the client got; 0 where it got none.
        received: bytes of the request's body that went on to the registry.
        served: bytes of the answer's body.
        fault: what was done to it, empty for nothing.
    """

    method: str
    kind: Kind
    target: str
    status: int = 0
    received: int = 0
    served: int = 0
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """Sums of exchanges.

    Attributes:
        requests: by method and kind, refused ones included.
        answers: by status; 0 where there was none.
        faults: by name; ``limit`` for those over the limit.
        received: bytes of request bodies that the registry got.
        served: bytes of blobs that it gave.
    """

    requests: Mapping[tuple[str, str], int]
    answers: Mapping[int, int]
    faults: Mapping[str, int]
    received: int
    served: int

    def of(self, method: str = "", kind: str = "") -> int:
        """How many requests of a method, a kind, both, or at all."""
        return sum(
            number
            for (its_method, its_kind), number in self.requests.items()
            if method in ("", its_method) and kind in ("", its_kind)
        )


@contextlib.contextmanager
def faulty(host: str, faults: Faults | None = None) -> Iterator[Faulty]:
    """A proxy on a free loopback port in front of ``host``, until the block ends."""
    proxy = Faulty(host, faults or Faults())
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


class Faulty:
    """A running proxy.

    Attributes:
        host: ``127.0.0.1:PORT``; the same after a stop and a start.
        faults: may be set at any time.
    """

    def __init__(self, upstream: str, faults: Faults) -> None:
        address, _, port = upstream.rpartition(":")
        self.host = ""
        self.faults = faults
        self._upstream = (address, int(port))
        self._lock = threading.Lock()
        self._exchanges: list[Exchange] = []
        self._seen: Counter[str] = Counter()
        self._hits = 0
        self._limiter = Limiter()
        self._listener: socket.socket | None = None
        self._stopped = threading.Event()
        self._threads: set[threading.Thread] = set()
        self._sockets: set[socket.socket] = set()

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """All so far, in the order in which they began."""
        with self._lock:
            return tuple(self._exchanges)

    @property
    def counts(self) -> Counts:
        """Sums so far. What a client has seen the end of is in them."""
        all_of_them = self.exchanges
        return Counts(
            requests=Counter((one.method, one.kind) for one in all_of_them),
            answers=Counter(one.status for one in all_of_them),
            faults=Counter(one.fault for one in all_of_them if one.fault),
            received=sum(one.received for one in all_of_them),
            served=sum(one.served for one in all_of_them if one.kind == "blob"),
        )

    def forget(self) -> None:
        """Count from nothing."""
        with self._lock:
            self._exchanges.clear()

    def wait_until(self, reached: Callable[[Counts], bool], seconds: float = 30.0) -> bool:
        """Wait until the counts are so; False when they are not in time."""
        end = time.monotonic() + seconds
        while not reached(self.counts):
            if time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True

    def start(self) -> None:
        """Listen, on the same port as before. A no-op while it runs."""
        if self._listener is not None:
            return
        self._stopped = threading.Event()
        end = time.monotonic() + _START_SECONDS
        while True:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", int(self.host.rpartition(":")[2] or 0)))
                break
            except OSError:  # somebody's outgoing connection has been given the port
                listener.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        listener.listen(_BACKLOG)
        self.host = f"127.0.0.1:{listener.getsockname()[1]}"
        self._listener = listener
        self._begin(self._accept, listener, self._stopped)

    def stop(self) -> None:
        """Refuse connections and break off those there are. A no-op while it does not run."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        self._stopped.set()
        # Closing alone would not wake the thread that waits in accept().
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        with self._lock:
            sockets, threads = list(self._sockets), list(self._threads)
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()

    # -- connections -----------------------------------------------------------------------------

    def _begin(self, work: Callable[..., None], *arguments: object) -> None:
        def run() -> None:
            try:
                work(*arguments)
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _accept(self, listener: socket.socket, stopped: threading.Event) -> None:
        while not stopped.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self._begin(self._serve, client, stopped)

    def _serve(self, client: socket.socket, stopped: threading.Event) -> None:
        """All requests of one connection."""
        connection = _Connection(self, client, stopped)
        try:
            self._opened(client, stopped)
            while connection.one_more():
                pass
        except (OSError, Gone):
            # Whatever a registry breaks off it breaks off so that the client notices.
            connection.reset()
        finally:
            connection.close()
            with self._lock:
                self._sockets -= {client}
                if connection.registry:
                    self._sockets -= {connection.registry.socket}

    def connect(self, stopped: threading.Event) -> socket.socket:
        """A connection to the registry."""
        there = socket.create_connection(self._upstream)
        there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._opened(there, stopped)
        return there

    def _opened(self, one: socket.socket, stopped: threading.Event) -> None:
        with self._lock:
            self._sockets.add(one)
        if stopped.is_set():
            raise Gone

    # -- what happens to a request ---------------------------------------------------------------

    def began(self, head: Head) -> Exchange:
        exchange = Exchange(head.method, kind_of(head.method, head.target), head.target)
        with self._lock:
            self._exchanges.append(exchange)
        return exchange

    def drawn(self, exchange: Exchange, faults: Faults) -> tuple[str, random.Random]:
        """What is to happen to it."""
        path = exchange.target.partition("?")[0]
        # Each upload has a name of its own, which no seed foresees.
        place = _UPLOAD.sub(r"\1", path)
        request = f"{exchange.method} {exchange.kind} {place}"
        with self._lock:
            count = self._seen[request]
            self._seen[request] += 1
        name, dice = faults.drawn(request, count)
        if not faults.may_hit(exchange.method, exchange.kind, exchange.target):
            name = ""
        return name, dice

    def struck(self, exchange: Exchange, name: str, faults: Faults) -> bool:
        """Note that it happens; False when enough has happened."""
        with self._lock:
            if faults.at_most is not None and self._hits >= faults.at_most:
                return False
            self._hits += 1
        exchange.fault = name
        return True

    def seconds_over(self, limit: Limit | None) -> float:
        """0 to let a request pass, else how long until one more may."""
        return self._limiter.seconds_over(limit) if limit else 0.0


@dataclass(slots=True)
class _Connection:
    """A client's connection, and the one to the registry that goes with it."""

    proxy: Faulty
    client_socket: socket.socket
    stopped: threading.Event
    client: Side = field(init=False)
    registry: Side | None = None

    def __post_init__(self) -> None:
        self.client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client = Side(self.client_socket)

    def one_more(self) -> bool:
        """Carry out one request; False when the connection is over."""
        head = self.client.request()
        if head is None:
            return False
        faults = self.proxy.faults
        exchange = self.proxy.began(head)
        name, dice = self.proxy.drawn(exchange, faults)
        if faults.latency:
            self.stopped.wait(faults.latency)
        if over := self.proxy.seconds_over(faults.limit):
            exchange.fault = "limit"
            says = faults.limit is not None and faults.limit.retry_after
            return self._refuse(head, exchange, 429, int(over) + 1 if says else None)
        try:
            return self._carry_out(head, exchange, faults, name, dice)
        except Broken as broken:
            if broken.name == "stall":
                self._stall()
            if broken.name != "truncate":
                self.reset()
            return False

    def reset(self) -> None:
        """The client sees `connection reset`, not an orderly end."""
        with contextlib.suppress(OSError):
            self.client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def close(self) -> None:
        self.client_socket.close()
        if self.registry:
            self.registry.socket.close()

    def _carry_out(
        self, head: Head, exchange: Exchange, faults: Faults, name: str, dice: random.Random
    ) -> bool:
        def strike() -> bool:
            return self.proxy.struck(exchange, name, faults)

        after = dice.random() < 0.5
        if name == "too_many" and strike():
            return self._refuse(head, exchange, 429, faults.retry_after)
        if name == "unavailable" and not after and strike():
            return self._refuse(head, exchange, dice.choice(_UNAVAILABLE), None)
        if self.registry is None:
            self.registry = Side(self.proxy.connect(self.stopped))
        trouble = upwards(name, head, dice, after)
        early = self._send(head, exchange, trouble, strike)
        answer = early or self.registry.answer(head.method, self.client.socket.sendall)
        if name == "unavailable" and strike():
            self.registry.skip(answer.framing)
            status = dice.choice(_UNAVAILABLE)
            exchange.status = status
            self.client.socket.sendall(simple_answer(status, head.method))
            return answer.keeps_open and not early
        raw = answer.raw
        if name == "wrong_digest" and answer.digest and strike():
            raw = raw.replace(answer.digest, b"sha256:" + dice.randbytes(32).hex().encode())
        cut = None if trouble else downwards(name, exchange.kind, answer, dice)
        if cut and cut.at < 0:  # an answer without a body
            if strike():
                raise Broken(name)
            cut = None
        exchange.status = answer.status
        self.client.socket.sendall(raw)

        def count(number: int) -> None:
            exchange.served += number

        self._pump(self.registry, self.client, answer, cut, strike, count)
        return answer.keeps_open and not early and not head.wants_close

    def _send(
        self,
        head: Head,
        exchange: Exchange,
        trouble: Trouble | None,
        strike: Callable[[], bool],
    ) -> Answer | None:
        """The request to the registry; its answer, if that came before it had all of it."""
        assert self.registry is not None
        there = self.registry
        if trouble and trouble.at < 0:
            if strike():
                raise Broken(trouble.name)
            trouble = None

        def count(number: int) -> None:
            exchange.received += number

        try:
            there.socket.sendall(head.raw)
            if head.expects_continue:
                answer = there.answer(head.method, None)
                if answer.status != 100:
                    return answer
                self.client.socket.sendall(answer.raw)
            self._pump(self.client, there, head, trouble, strike, count)
        except (BrokenPipeError, ConnectionResetError):
            return there.answer(head.method, None)
        return None

    def _pump(
        self,
        source: Side,
        target: Side,
        head: Head | Answer,
        trouble: Trouble | None,
        strike: Callable[[], bool],
        count: Callable[[int], None],
    ) -> None:
        """A body, counted before it goes on: who has received it finds it counted."""
        chunked = head.framing == "chunked"
        done = 0
        for piece in source.body(head.framing):
            if trouble and done + len(piece) > trouble.at:
                place, name = trouble.at - done, trouble.name
                trouble = None
                if strike():
                    if name != "corrupt":
                        count(place)
                        target.send(piece[:place], chunked)
                        raise Broken(name)
                    piece[place] ^= 0xFF
            count(len(piece))
            target.send(piece, chunked)
            done += len(piece)
        if trouble and trouble.name != "corrupt" and strike():
            raise Broken(trouble.name)
        if chunked:
            target.socket.sendall(b"0\r\n\r\n")

    def _refuse(self, head: Head, exchange: Exchange, status: int, retry_after: int | None) -> bool:
        if head.expects_continue:
            exchange.status = status
            self.client.socket.sendall(simple_answer(status, head.method, retry_after))
            return False
        # Closed with something unread, a connection is reset, and the answer may be lost with it.
        self.client.skip(head.framing)
        exchange.status = status
        self.client.socket.sendall(simple_answer(status, head.method, retry_after))
        return not head.wants_close

    def _stall(self) -> None:
        """Until the client gives up, or the proxy is stopped."""
        poll = select.poll()
        poll.register(self.client_socket, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        while not self.stopped.is_set() and not poll.poll(50):
            pass


__all__ = ["Counts", "Exchange", "Faults", "Faulty", "Limit", "faulty"]
