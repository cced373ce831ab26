"""Find references in programs, read piece by piece in one pass.

The scanner keeps each place that looks like a part of a reference with the bytes around it. When
it has seen the whole file, it decides where the reference begins and ends: from what the program
itself says about its constants (`go_strings`), else from the characters around it.
"""

from __future__ import annotations

import re
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from kfdeploy.scan.content import candidate
from kfdeploy.scan.content.candidate import Bounds, Candidate
from kfdeploy.scan.content.go_strings import (
    LENGTH_MAX,
    ConstantBounds,
    StringTable,
    has_address,
)

AROUND: Final = 320
"""Bytes kept on either side of an anchor: more than a reference is long."""
_CARRY: Final = 2 * AROUND
_WINDOWS_MAX: Final = 20_000
"""A file with more anchors was made to waste memory; the report says so."""
_PAIRS_MAX: Final = 400_000
_LEAS_MAX: Final = 4_000_000
_NEAR_STEPS: Final = 6
_NEAR_BYTES: Final = 200

ANCHOR: Final = re.compile(
    # The literal colon first: that is what makes the search fast.
    rb":(?<=[a-z0-9_.\-]:)(?=[0-9]|v[0-9]|latest|main|master|stable|nightly|edge|dev|release|slim"
    rb"|alpine|bookworm|bullseye|debug|canary)"
)
_HOSTS: Final = (
    (
        b".io/",
        rb"\.io/(?:(?<=docker\.io/)|(?<=quay\.io/)|(?<=cr\.io/)|(?<=registry\.k8s\.io/))",
    ),
    (b"@sha256:", rb"@sha256:[0-9a-f]{64}"),
    (b".pkg.dev/", rb"\.pkg\.dev/"),
    (b"public.ecr.aws/", rb"public\.ecr\.aws/"),
    (b"mcr.microsoft.com/", rb"mcr\.microsoft\.com/"),
    (b".amazonaws.com/", rb"\.amazonaws\.com/"),
    (b"registry.", rb"registry\.[a-z][a-z0-9.-]*/[a-z]"),
    (b"docker.", rb"docker\.[a-z][a-z0-9.-]*\.[a-z]{2,}/[a-z]"),
    (b"cgr.dev/", rb"cgr\.dev/"),
)
"""A literal and the pattern around it. The literal is searched first, which is far faster."""
_HOST_PATTERNS: Final = tuple((literal, re.compile(pattern)) for literal, pattern in _HOSTS)


def find_anchors(data: bytes, start: int, end: int) -> Iterator[int]:
    """Yield offsets between ``start`` and ``end`` that may be inside a reference, in no order."""
    for match in ANCHOR.finditer(data, start, end):
        yield match.start()
    for literal, pattern in _HOST_PATTERNS:
        if (first := data.find(literal, start, end)) >= 0:
            for match in pattern.finditer(data, first, end):
                yield match.start()


_NAMES: Final = (re.compile(rb"mage(?<=[iI]mage)"), re.compile(rb"MAGE(?<=IMAGE)"))
"""A part of the name of a flag or variable for an image; code may use it beside a reference."""
_NAME_AROUND: Final = 64
_FLAG: Final = re.compile(rb"[a-z][a-z0-9-]*image[a-z0-9-]*")
_VARIABLE: Final = re.compile(rb"[A-Z][A-Z0-9_]*IMAGE[A-Z0-9_]*")
_LEA: Final = re.compile(
    # lea REG, [rip+X], usually followed by the length: mov REG, imm32, or a store of it. If a call
    # follows, X is a type (of runtime.newobject, for example); that is one match in three.
    rb"\x8d(?<=[\x48\x4c]\x8d)[\x05\x0d\x15\x1d\x25\x2d\x35\x3d](....)(?!\xe8)"
    rb"(?:[\xb8-\xbf](.)\0\0\0|\x41[\xb8-\xbf](.)\0\0\0"
    rb"|\x48\x89.(?:.{0,2})\x48\xc7.(?:.{0,2})(.)\0\0\0)?",
    re.DOTALL,
)
_HEADER: Final = re.compile(rb"\0\0\0\0(?=[\x18-\xff]\0{7})")
"""The end of a pointer that a length follows, in read-only data: the header of a constant that was
converted to an interface. Only long constants: others tell the short ones, and types are full of
pointers that small numbers follow."""
_DISPLACEMENT: Final = struct.Struct("<i")
_PAIR: Final = struct.Struct("<QQ")
_AMD64: Final = 62
_GO: Final = b"\xff Go buildinf:"
_TABLES: Final = re.compile(rb"\xf1\xff\xff\xff\0\0[\1\2\4]\x08")
"""The beginning of Go's tables of function names and lines, which are a third of a program or more.
They hold no constants and reach to the segment's end (go1.20 and later, debug/gosym/pclntab.go)."""
_TABLES_ALIGN: Final = 32


@dataclass(frozen=True, slots=True)
class _Segment:
    """A part of the file that is loaded: executable, writable or read-only."""

    start: int
    end: int
    address: int
    runs: bool
    written: bool

    def to_address(self, at: int) -> int:
        return at - self.start + self.address


@dataclass(frozen=True, slots=True)
class _Window:
    """Bytes around an anchor; ``at`` is the anchor's offset in the file."""

    at: int
    start: int
    content: bytes


class BinaryScanner:
    """Find the references in one program: `feed` its bytes, then call `find_candidates` once."""

    def __init__(self, head: bytes) -> None:
        """
        Args:
            head: the first bytes, with the program headers (64 KiB are enough).
        """
        self._segments, machine = _parse_segments(head)
        self._is_amd64 = machine == _AMD64
        self._low = min((s.address for s in self._segments if not s.runs), default=0)
        self._high = max(
            (s.to_address(s.end) for s in self._segments if not s.runs and not s.written), default=0
        )
        self._at = 0
        self._rest = b""
        self._windows: list[_Window] = []
        self._names: list[_Window] = []
        self._pairs: list[tuple[int, int]] = []
        self._headers: list[tuple[int, int]] = []
        self._lea_at = array("Q")
        self._lea_to = array("Q")
        self._tables = (0, 0)
        self.is_go = False
        self.overfull = False

    def feed(self, piece: bytes) -> None:
        """Scan the next bytes."""
        data = self._rest + piece if self._rest else piece
        self._scan_bytes(data, self._at, AROUND if self._at else 0, len(data) - AROUND)
        keep = min(len(data), _CARRY)
        self._at += len(data) - keep
        self._rest = data[len(data) - keep :]

    def find_candidates(self) -> Iterator[tuple[int, Candidate]]:
        """Yield offsets and candidates, in order; a reference may come more than once."""
        self._scan_bytes(self._rest, self._at, AROUND if self._at else 0, len(self._rest))
        self._rest = b""
        table = StringTable(self._pairs, self._headers) if self.is_go else StringTable(())
        targets = sorted(set(self._lea_to)) if table else []
        names = self._find_image_names(table)
        places = self._map_nearby_names(table, names) if names else {}
        for window in self._windows:
            yield from self._judge_window(window, table, targets, places)

    # -- one pass ----------------------------------------------------------------------------------

    def _scan_bytes(self, data: bytes, at: int, start: int, end: int) -> None:
        """Collect addresses, lengths and anchors between ``start`` and ``end`` of ``data``.

        ``at`` is the file's offset of ``data``.
        """
        if end <= start:
            return
        self.is_go = self.is_go or _GO in data
        code_end = 0
        for segment in self._segments:
            low = max(segment.start - at, start)
            high = min(segment.end - at, end)
            if low < high:
                self._scan_segment(data, at, low, high, segment)
                code_end = high if segment.runs else code_end
        # There are no constants among instructions.
        for low, high in self._outside_tables(at, max(start, code_end), end):
            self._keep_windows(data, at, low, high)

    def _scan_segment(self, data: bytes, at: int, low: int, high: int, segment: _Segment) -> None:
        """Collect addresses and lengths of constants in a segment."""
        if segment.runs:
            if self._is_amd64:
                self._read_code(data, at, low, high, segment)
        elif segment.written:
            self._read_pointers(data, at, low, high, segment)
        else:
            self._find_tables(data, at, low, high, segment)
            for first, last in self._outside_tables(at, low, high):
                self._read_headers(data, at, first, last, segment)

    def _keep_windows(self, data: bytes, at: int, low: int, high: int) -> None:
        """Keep the bytes around anchors and around names of flags and variables."""
        if len(self._windows) < _WINDOWS_MAX or not self.overfull:
            for anchor in find_anchors(data, low, high):
                self._keep_window(self._windows, data, at, anchor, AROUND)
        for name in _NAMES:
            for match in name.finditer(data, low, high):
                self._keep_window(self._names, data, at, match.start(), _NAME_AROUND)

    def _find_tables(self, data: bytes, at: int, low: int, high: int, segment: _Segment) -> None:
        if self._tables[1]:
            return
        for match in _TABLES.finditer(data, low, min(high + 8, len(data))):
            if segment.to_address(at + match.start()) % _TABLES_ALIGN == 0:
                self._tables = (at + match.start(), segment.end)
                return

    def _outside_tables(self, at: int, low: int, high: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of a range of ``data`` that are not Go's tables."""
        first, last = (offset - at for offset in self._tables)
        if self._tables[1] == 0:
            first = last = high
        for start, end in ((low, min(high, first)), (max(low, last), high)):
            if start < end:
                yield start, end

    def _keep_window(
        self, windows: list[_Window], data: bytes, at: int, anchor: int, around: int
    ) -> None:
        if len(windows) >= _WINDOWS_MAX:
            self.overfull = True
            return
        low = max(0, anchor - around)
        windows.append(_Window(at + anchor, at + low, data[low : anchor + around]))

    def _read_code(self, data: bytes, at: int, low: int, high: int, segment: _Segment) -> None:
        unpack_from = _DISPLACEMENT.unpack_from
        base = segment.address - segment.start + at
        bottom, top = self._low, self._high
        lea_at, lea_to, pairs = self._lea_at, self._lea_to, self._pairs
        if len(lea_at) >= _LEAS_MAX:
            return
        add_at, add_to = lea_at.append, lea_to.append  # half a million times a program
        for match in _LEA.finditer(data, low, high):
            end = match.end(1)
            target = base + end + unpack_from(data, end - 4)[0]
            if bottom <= target < top:
                add_at(at + end)
                add_to(target)
                group: int = match.lastindex  # type: ignore[assignment]  # the first always matches
                if group > 1 and len(pairs) < _PAIRS_MAX and (length := match[group][0]):
                    pairs.append((target, length))

    def _read_pointers(self, data: bytes, at: int, low: int, high: int, segment: _Segment) -> None:
        """Collect pairs of pointer and length: Go's string headers."""
        low += -segment.to_address(at + low) % 8
        count = (min(high + 8, len(data)) - low) // 8
        if count < 2:
            return
        words = memoryview(data)[low : low + 8 * count].cast("Q")
        bottom, top = self._low, self._high
        found = [index for index, word in enumerate(words) if bottom <= word < top]
        for index in found:
            if index + 1 < count and 0 < words[index + 1] <= LENGTH_MAX:
                if len(self._pairs) >= _PAIRS_MAX:
                    return
                self._pairs.append((words[index], words[index + 1]))

    def _read_headers(self, data: bytes, at: int, low: int, high: int, segment: _Segment) -> None:
        skew = segment.to_address(at) % 8
        bottom, top = self._low, self._high
        for match in _HEADER.finditer(data, low, high):
            where = match.start() - 4
            if where < 0 or (where + skew) % 8:
                continue
            pointer, length = _PAIR.unpack_from(data, where)
            if bottom <= pointer < top and len(self._headers) < _PAIRS_MAX:
                self._headers.append((pointer, length))

    # -- when all has been seen --------------------------------------------------------------------

    def _address_of(self, at: int) -> int | None:
        for segment in self._segments:
            if segment.start <= at < segment.end and not segment.runs and not segment.written:
                return segment.to_address(at)
        return None

    def _address_shift(self, window: _Window) -> int:
        """Return the address of the window's first byte; it must be in a read-only segment."""
        address = self._address_of(window.at)
        assert address is not None
        return window.start - window.at + address

    def _constants_around(
        self, window: _Window, table: StringTable, targets: Sequence[int]
    ) -> list[tuple[bytes, int, bool]]:
        """Return the constants that may hold the anchor: text, address, whether it is certain."""
        address = self._address_of(window.at)
        if not table or address is None:
            return []
        shift = self._address_shift(window)
        out = []
        bounds = list(table.find_bounds(address))
        if len(bounds) > 1:
            # Addresses in code are beginnings of constants, and so is the byte behind a constant.
            votes = [has_address(targets, b.start) + has_address(targets, b.end) for b in bounds]
            best = max(votes)
            bounds = [b for b, vote in zip(bounds, votes, strict=True) if vote == best]
            if best < 2 and (between := _bounds_between(targets, address)) is not None:
                bounds.append(between)
        for bound in bounds:
            low, high = bound.start - shift, bound.end - shift
            text = window.content[max(0, low) : max(0, high)]
            out.append((text, bound.start, bound.sure or len(bounds) == 1))
        return out

    def _find_image_names(self, table: StringTable) -> dict[int, str]:
        """Map the addresses of constants to flags and variables with "image" in their names."""
        out = {}
        for window in self._names if table else ():
            for text, address, _ in self._constants_around(window, table, ()):
                if _FLAG.fullmatch(text):
                    out[address] = f"--{text.decode()}"
                elif _VARIABLE.fullmatch(text):
                    out[address] = text.decode()
        return out

    def _map_nearby_names(
        self, table: StringTable, names: Mapping[int, str]
    ) -> dict[int, list[str]]:
        """Map the addresses of constants to the names that code uses beside them, nearest first."""
        steps: dict[int, dict[str, int]] = {}
        lea_at, lea_to = self._lea_at, self._lea_to
        for index, target in enumerate(lea_to):
            name = names.get(target)
            if name is None:
                continue
            for other in range(max(0, index - _NEAR_STEPS), index + _NEAR_STEPS + 1):
                if other < len(lea_to) and abs(lea_at[other] - lea_at[index]) <= _NEAR_BYTES:
                    known = steps.setdefault(lea_to[other], {})
                    known[name] = min(abs(other - index), known.get(name, _NEAR_STEPS))
        return {
            target: sorted(known, key=lambda name: (known[name], name))
            for target, known in steps.items()
        }

    def _judge_window(
        self,
        window: _Window,
        table: StringTable,
        targets: Sequence[int],
        places: Mapping[int, Sequence[str]],
    ) -> Iterator[tuple[int, Candidate]]:
        readings = self._constants_around(window, table, targets)
        found: list[Candidate] = []
        for text, address, sure in readings:
            bounds: Bounds = "exact" if sure else "unsure"
            near = tuple(sorted(places.get(address, ()), key=partial(_name_distance, text)))
            whole = _judge_text(text, bounds=bounds, near=near)
            if whole is not None:
                found.append(whole)
        if not readings or (not found and any(sure for _, _, sure in readings)):
            # The constant is longer than the reference, or the program has no run of constants.
            text = readings[0][0] if readings else window.content
            low = readings[0][1] - self._address_shift(window) if readings else 0
            inner = _judge_word(text, window.at - window.start - max(0, low), packed=not readings)
            if inner is not None:
                found.append(inner)
        if found:
            yield window.at, max(found, key=lambda item: (item.score, len(item.ref)))


def _judge_word(text: bytes, at: int, *, packed: bool) -> Candidate | None:
    """Judge the word around the anchor in a longer text."""
    left, right = text[:at], text[at:]
    before = left.rstrip(candidate.TOKEN)
    token = left[len(before) :] + right[: len(right) - len(right.lstrip(candidate.TOKEN))]
    after = right.lstrip(candidate.TOKEN)
    if packed and not (before[-1:] <= b"\x1f" and after[:1] <= b"\x1f"):
        return _judge_text(token, bounds="word", prose=True, key=key_before(before))
    if packed:
        return _judge_text(token, bounds="word")
    return _judge_text(token, bounds="word", prose=True, key=key_before(before))


_KEY: Final = re.compile(
    rb"([A-Za-z_][\w.-]*)[\"'\])]{0,2}[ \t]*(?::=|\?=|=|:|,|\|\||\?\?)[ \t]*[\"'`]?\Z"
)


def key_before(before: bytes) -> str:
    """Return the variable, flag or field whose value begins where ``before`` ends, or ""."""
    line = before[before.rfind(b"\n") + 1 :][-160:]
    match = _KEY.search(line)
    return match[1].decode() if match else ""


def _judge_text(
    text: bytes,
    *,
    bounds: Bounds,
    near: Sequence[str] = (),
    prose: bool = False,
    key: str = "",
) -> Candidate | None:
    if not 3 <= len(text) <= LENGTH_MAX or not text.isascii():
        return None
    return candidate.judge_token(text.decode(), bounds=bounds, near=near, prose=prose, key=key)


def _bounds_between(targets: Sequence[int], address: int) -> ConstantBounds | None:
    """Return the bounds between the addresses in code that enclose an address."""
    at = bisect_right(targets, address)
    if not 0 < at < len(targets) or targets[at] - targets[at - 1] > LENGTH_MAX:
        return None
    return ConstantBounds(targets[at - 1], targets[at] - targets[at - 1], False)


def _name_distance(text: bytes, name: str) -> int:
    """Return minus the number of words that a name and a reference have in common."""
    words = set(re.findall(r"[a-z]{3,}", name.lower())) - {"image"}
    return -sum(word.encode() in text for word in words)


def _parse_segments(head: bytes) -> tuple[tuple[_Segment, ...], int]:
    """Return the loaded segments of a 64-bit little-endian ELF file, and its machine.

    Other files have no segments, and machine 0.
    """
    if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
        return (), 0
    machine = struct.unpack_from("<H", head, 18)[0]
    (offset,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    out = []
    for index in range(min(count, 64)):
        at = offset + index * size
        if size < 56 or at + 56 > len(head):
            break
        kind, flags, start, address, _, length = struct.unpack_from("<IIQQQQ", head, at)
        if kind == 1 and start + length < 1 << 62:
            runs, written = bool(flags & 1), bool(flags & 2)
            out.append(_Segment(start, start + length, address, runs, written))
    return tuple(out), machine
