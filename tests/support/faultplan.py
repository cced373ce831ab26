"""What a proxy in front of a registry does to which request (tests/support/faults.py)."""

from __future__ import annotations

import random
import re
import threading
import time
from dataclasses import dataclass
from typing import Final, Literal

from tests.support.httpwire import Answer, Head

Kind = Literal[
    "ping", "catalog", "manifest", "blob", "upload", "mount", "tags", "referrers", "other"
]

_KINDS: Final[tuple[tuple[re.Pattern[str], Kind], ...]] = (
    (re.compile(r"/v2/?$"), "ping"),
    (re.compile(r"/v2/_catalog$"), "catalog"),
    (re.compile(r"/v2/.+/manifests/[^/]+$"), "manifest"),
    (re.compile(r"/v2/.+/blobs/uploads/?[^/]*$"), "upload"),
    (re.compile(r"/v2/.+/blobs/[^/]+$"), "blob"),
    (re.compile(r"/v2/.+/tags/list$"), "tags"),
    (re.compile(r"/v2/.+/referrers/[^/]+$"), "referrers"),
)


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests in so many seconds; what is over gets 429.

    Attributes:
        window: ``bucket`` gives a full minute's worth at once and then fills evenly; ``fixed``
            starts to count anew at the end of each period.
        retry_after: the answer says how many seconds to wait, rounded up.
    """

    requests: int
    seconds: float = 60.0
    retry_after: bool = True
    window: Literal["bucket", "fixed"] = "bucket"


@dataclass(frozen=True, slots=True)
class Faults:
    """What happens to requests. Shares are of all requests that are of a listed kind.

    Attributes:
        latency: seconds that each request is held back, faulty or not.
        limit: for all requests together, faulty or not.
        reset: share whose connection is reset after a random byte, of either body.
        unavailable: share answered with a random 5xx; half of them after the registry has done
            what it was asked.
        truncate: share whose answer ends early: its full Content-Length is said, then a random
            number of its bytes, and the connection is closed.
        corrupt: share of blobs and uploads with one byte changed.
        wrong_digest: share of answers whose Docker-Content-Digest is another.
        stall: share where after a random byte nothing more comes, and the connection stays open.
        too_many: share answered 429, in whatever number they come.
        retry_after: seconds that such a 429 names; None to say nothing.
        kinds: requests that may be hit; empty for all.
        methods: likewise.
        matching: regular expression that is found in what may be hit, its path and query.
        each: how often the same request may be hit; None for always.
        at_most: how many are hit in all; None without end.
    """

    seed: int = 0
    latency: float = 0.0
    limit: Limit | None = None
    reset: float = 0.0
    unavailable: float = 0.0
    truncate: float = 0.0
    corrupt: float = 0.0
    wrong_digest: float = 0.0
    stall: float = 0.0
    too_many: float = 0.0
    retry_after: int | None = None
    kinds: frozenset[Kind] = frozenset()
    methods: frozenset[str] = frozenset()
    matching: str = ""
    each: int | None = None
    at_most: int | None = None

    def may_hit(self, method: str, kind: Kind, target: str) -> bool:
        """Whether such a request is one of those that may be hit."""
        return (
            (not self.kinds or kind in self.kinds)
            and (not self.methods or method in self.methods)
            and re.search(self.matching, target) is not None
        )

    def drawn(self, request: str, count: int) -> tuple[str, random.Random]:
        """What is to happen to a request that came ``count`` times before; empty for nothing."""
        dice = random.Random(f"{self.seed} {request} {count}")
        if self.each is not None and count >= self.each:
            return "", dice
        number = dice.random()
        for name in (
            *("reset", "unavailable", "truncate", "corrupt", "wrong_digest", "stall"),
            "too_many",
        ):
            number -= getattr(self, name)
            if number < 0:
                return name, dice
        return "", dice


def kind_of(method: str, target: str) -> Kind:
    """What a request asks for."""
    path, _, query = target.partition("?")
    if method == "POST" and "/blobs/uploads" in path and "mount=" in query:
        return "mount"
    return next((kind for pattern, kind in _KINDS if pattern.match(path)), "other")


class Limiter:
    """Keeps to a limit, which may become another at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limit: Limit | None = None
        self._since = 0.0
        self._left = 0.0

    def seconds_over(self, limit: Limit) -> float:
        """0 to let a request pass, which is then counted; else how long until one more may."""
        with self._lock:
            now = time.monotonic()
            if limit != self._limit:
                self._limit, self._since, self._left = limit, now, float(limit.requests)
            passed = now - self._since
            pace = limit.requests / limit.seconds
            if limit.window == "bucket":
                self._left = min(limit.requests, self._left + passed * pace)
                self._since = now
                wait = (1 - self._left) / pace
            else:
                if passed >= limit.seconds:
                    self._left = limit.requests
                    self._since += passed // limit.seconds * limit.seconds
                wait = self._since + limit.seconds - now
            if self._left >= 1:
                self._left -= 1
                return 0.0
            return wait


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happens to a body, and after how many of its bytes."""

    name: str
    at: int


class Broken(Exception):
    """A body was broken off on purpose."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def upwards(name: str, head: Head, dice: random.Random, before: bool) -> Trouble | None:
    """What happens to the request's body; at -1 where it has none and the registry gets nothing."""
    if name not in {"reset", "stall", "corrupt"}:
        return None
    if head.framing == 0:
        return Trouble(name, -1) if before and name != "corrupt" else None
    if name == "corrupt":
        # Only where the registry itself can tell: manifests have their digest as a name as well.
        return Trouble(name, _place(head, dice)) if "/blobs/uploads/" in head.target else None
    return Trouble(name, _place(head, dice)) if before else None


def downwards(name: str, kind: Kind, answer: Answer, dice: random.Random) -> Trouble | None:
    """What happens to the answer's body; at -1 where it has none and the client gets nothing."""
    if name == "corrupt":
        hit = kind == "blob" and answer.status in {200, 206} and answer.framing != 0
        return Trouble(name, _place(answer, dice)) if hit else None
    if name == "truncate":
        return Trouble(name, _place(answer, dice)) if answer.framing != 0 else None
    if name in {"reset", "stall"}:
        return Trouble(name, _place(answer, dice) if answer.framing != 0 else -1)
    return None


def _place(head: Head | Answer, dice: random.Random) -> int:
    """A random byte; of a body whose length nobody says, rather an early one."""
    if isinstance(head.framing, int):
        return dice.randrange(head.framing)
    return int(2 ** dice.uniform(0, 16))
