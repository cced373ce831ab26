"""Versions of programs, from the tags and labels of their images, and ranges of versions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import total_ordering
from itertools import zip_longest

_VERSION = re.compile(r"v?(?P<numbers>\d+(?:\.\d+)+)(?P<rest>.*)", re.DOTALL)
_BEFORE = re.compile(r"[-.]?(?:rc|alpha|beta|pre|dev)", re.IGNORECASE)


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A dotted number: of ``1.9.2``, ``v1.28.0-distroless`` or ``2.16.0-rc.1``.

    Pre-releases come before their release. Any other suffix names a variant of the image and is
    ignored.
    """

    numbers: tuple[int, ...]
    before: str = ""

    @classmethod
    def parse(cls, text: str) -> Version | None:
        """Return the version that a tag begins with, or None."""
        match = _VERSION.fullmatch(text)
        if match is None:
            return None
        numbers = tuple(int(part) for part in match["numbers"].split("."))
        rest = match["rest"]
        return cls(numbers, rest.lower() if _BEFORE.match(rest) else "")

    def __lt__(self, other: Version) -> bool:
        return self._order < other._order

    def __str__(self) -> str:
        return ".".join(map(str, self.numbers)) + self.before

    @property
    def _order(self) -> tuple[tuple[int, ...], bool, str]:
        numbers = self.numbers
        while numbers and numbers[-1] == 0:
            numbers = numbers[:-1]
        return numbers, not self.before, self.before


@dataclass(frozen=True, slots=True)
class VersionRange:
    """A closed range, one version, or ``any``."""

    first: Version | None
    last: Version | None

    @classmethod
    def parse(cls, text: str) -> VersionRange:
        """Parse ``1.9.2``, ``1.9.0 - 1.9.2`` or ``any``.

        Raises:
            ValueError: the text has another form, or its first version is the higher one.
        """
        if text == "any":
            return cls(None, None)
        first, _, last = text.partition(" - ")
        start, end = Version.parse(first), Version.parse(last or first)
        if start is None or end is None or text not in (f"{start}", f"{start} - {end}"):
            raise ValueError(f"{text!r} is not a version, a range `A - B` or `any`")
        if end < start:
            raise ValueError(f"{text!r}: the first version is higher than the last")
        return cls(start, end)

    @property
    def is_any(self) -> bool:
        return self.first is None

    def __contains__(self, version: Version | None) -> bool:
        if self.first is None or self.last is None:
            return True
        return version is not None and self.first <= version <= self.last

    def __str__(self) -> str:
        if self.first == self.last:
            return str(self.first or "any")
        return f"{self.first} - {self.last}"


def closest_version(version: Version | None, known: Iterable[Version]) -> Version | None:
    """Return the known version that differs least: in major, then in minor, then in patch.

    Of two that are equally close, return the lower one; for None, the latest; None if there are
    none.
    """
    ordered = sorted(known)
    if version is None:
        return ordered[-1] if ordered else None
    return min(ordered, key=lambda other: _version_distance(other, version), default=None)


def _version_distance(left: Version, right: Version) -> tuple[tuple[int, ...], bool]:
    """Subtract the earlier version from the later: 1.9.2 is closer to 1.10.0 than 1.9.0 is."""
    early, late = sorted((left, right))
    pairs = zip_longest(late.numbers, early.numbers, fillvalue=0)
    return tuple(later - earlier for later, earlier in pairs), left.before != right.before
