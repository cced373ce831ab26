"""Find where the string constants of a Go program begin and end.

Go's linker packs all string constants of a program into one run of bytes without separators:
first all of length 1, then all of length 2, and so on (`dodataSect` of cmd/link sorts them by
size). Inside such a class every string begins at a multiple of the length from every other one.
Some constants are known exactly, because the program's data or code has their address and length.
They give the exact bounds of all others, on any processor, stripped or not.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

LENGTH_MAX: Final = 255
"""Longer constants are ignored: no reference is that long."""
_GAP_MAX: Final = 1 << 16
"""Bytes between two known classes that may still hold constants."""
_ENOUGH: Final = 100
"""With fewer known constants a program is treated as if it had no run of them."""


@dataclass(frozen=True, slots=True)
class ConstantBounds:
    """Where a constant may begin, its length, and whether this is the only possible reading."""

    start: int
    length: int
    sure: bool

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class _LengthClass:
    """All constants of one length, by the addresses of the first and the last known one."""

    length: int
    first: int
    last: int

    @property
    def end(self) -> int:
        return self.last + self.length


class StringTable:
    """The run of constants, from known pairs of address and length."""

    def __init__(
        self, pairs: Iterable[tuple[int, int]], doubtful: Iterable[tuple[int, int]] = ()
    ) -> None:
        """
        Args:
            pairs: addresses and lengths found in data and code. There may be noise among them:
                only the true ones get longer as the address grows.
            doubtful: more pairs, which count only inside the run that `pairs` shows. The linker
                sorts other data by size, too: the addresses and sizes of a symbol table look like
                a run of constants.
        """
        known = set(pairs)
        chain = _longest_rise(sorted(known))
        if doubtful:
            low, high = _address_range(chain) if len(chain) >= _ENOUGH else (0, 1 << 64)
            known.update(pair for pair in doubtful if low <= pair[0] < high)
            chain = _longest_rise(sorted(known))
        self._classes = _group_by_length(chain) if len(chain) >= _ENOUGH else []
        self._firsts = [item.first for item in self._classes]

    def __bool__(self) -> bool:
        return bool(self._classes)

    def find_bounds(self, address: int) -> Sequence[ConstantBounds]:
        """Return the possible bounds of the constant with the byte at ``address``.

        There are none outside the run. None is longer than LENGTH_MAX.
        """
        index = bisect_right(self._firsts, address) - 1
        if index < 0:
            return self._before_first(address)
        here = self._classes[index]
        if address < here.end:
            return (_bounds_inside(here, address, sure=True),)
        if index + 1 == len(self._classes):
            return (
                (_bounds_inside(here, address, sure=False),)
                if address < here.end + _GAP_MAX
                else ()
            )
        return _bounds_between(here, self._classes[index + 1], address)

    def _before_first(self, address: int) -> Sequence[ConstantBounds]:
        if not self._classes or address < self._classes[0].first - _GAP_MAX:
            return ()
        return (_bounds_inside(self._classes[0], address, sure=False),)


def _bounds_inside(item: _LengthClass, address: int, *, sure: bool) -> ConstantBounds:
    return ConstantBounds(address - (address - item.first) % item.length, item.length, sure)


def _bounds_between(
    lower: _LengthClass, upper: _LengthClass, address: int
) -> Sequence[ConstantBounds]:
    """Return bounds in a gap, which holds the rest of one class and the beginning of the next.

    The gap consists of ``i`` strings of one length and ``j`` of the other; usually only one pair
    fits. If there may be lengths between them without a known constant, no reading is sure.
    """
    gap = upper.first - lower.end
    if gap > _GAP_MAX:
        return ()
    borders = [
        lower.end + used
        for used in range(0, gap + 1, lower.length)
        if (gap - used) % upper.length == 0
    ]
    adjacent = upper.length == lower.length + 1
    readings = {address < border for border in borders}
    if adjacent and len(readings) == 1:
        return (_bounds_inside(lower if readings.pop() else upper, address, sure=True),)
    found = [_bounds_inside(lower, address, sure=False), _bounds_inside(upper, address, sure=False)]
    for length in range(lower.length + 1, min(upper.length, lower.length + 4)):
        # No constant of this length is known: it can only follow the lower class at once.
        skipped = (address - lower.end) % length
        found.append(ConstantBounds(address - skipped, length, False))
    return found


def _address_range(chain: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the range of addresses of a run, from a chain that is most of it.

    The ends of a chain are often noise, and there are few long constants at the end of a run.
    """
    odd = len(chain) // 50
    low, high = chain[odd][0], chain[-1 - odd][0]
    return low - (high - low) // 8, high + (high - low)


def _longest_rise(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the longest subsequence of pairs, sorted by address, whose lengths never fall."""
    tails: list[int] = []
    ends: list[int] = []
    before = [-1] * len(pairs)
    for index, (_, length) in enumerate(pairs):
        at = bisect_right(tails, length)
        if at == len(tails):
            tails.append(length)
            ends.append(index)
        else:
            tails[at] = length
            ends[at] = index
        before[index] = ends[at - 1] if at else -1
    out = []
    index = ends[-1] if ends else -1
    while index >= 0:
        out.append(pairs[index])
        index = before[index]
    return out[::-1]


def _group_by_length(chain: Sequence[tuple[int, int]]) -> list[_LengthClass]:
    """Return each length's first and last constant of those that agree on where strings begin."""
    out: list[_LengthClass] = []
    start = 0
    lengths = [length for _, length in chain]
    while start < len(chain):
        length = lengths[start]
        end = bisect_right(lengths, length, start)
        addresses = [address for address, _ in chain[start:end]]
        start = end
        votes = Counter(address % length for address in addresses)
        rest, count = max(votes.items(), key=lambda item: (item[1], -item[0]))
        if count * 2 <= len(addresses):  # noise: these are not addresses of strings
            continue
        kept = [address for address in addresses if address % length == rest]
        out.append(_LengthClass(length, kept[0], kept[-1]))
    return out


def has_address(starts: Sequence[int], address: int) -> bool:
    """Return whether a sorted sequence has ``address``."""
    at = bisect_left(starts, address)
    return at < len(starts) and starts[at] == address
