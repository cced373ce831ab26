"""A layer's files, each looked into as far as its kind makes sense, in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from kfdeploy.scan.content import layer
from kfdeploy.scan.content import text as wording
from kfdeploy.scan.content.binary import Program
from kfdeploy.scan.content.layer import Find, Layer
from kfdeploy.scan.content.tar_stream import (
    PIECE,
    Checked,
    CutOff,
    Damaged,
    Inflated,
    Limits,
    Member,
    Readable,
    Tar,
)

_HEAD: Final = 64 << 10
_TEXT_MAX: Final = 4 << 20
"""A longer text is looked at in pieces of this size."""
_OVERLAP: Final = 2048
_TINY: Final = 8
_TOO_MUCH: Final = "{}: too much in it looks like a reference; some was left"


def read(stream: Readable, digest: str, size: int | None, limits: Limits | None = None) -> Layer:
    """Look through a layer.

    Args:
        stream: its bytes, packed or not.
        digest: that they must have; empty when nobody said one.
        size: that they must have; None when nobody said one.

    Returns:
        What was found. A layer that is damaged or cut off at a limit has that in ``damage``.
    """
    limits = limits or Limits()
    out = Layer(digest)
    blob = Checked(stream, digest, size)
    inflated = None
    try:
        inflated = Inflated(blob, limits)
        tar = Tar(inflated, limits)
        for find in _all(tar, out, limits):
            out.keep(find)
            _check(out, limits)  # here too: one file may be full of them
        out.notes += tar.notes
        blob.finish()
        out.found = blob.found
    except CutOff as reason:
        out.damage = f"{reason}; the rest of it was not read"
    except Damaged as reason:
        out.damage = str(reason)
        out.trusted = "not its digest" not in out.damage
    if inflated is not None:
        out.read = inflated.count
    out.finds = layer.best(out.finds)
    return out


def _all(tar: Tar, out: Layer, limits: Limits) -> Iterator[Find]:
    for member in tar.members():
        _check(out, limits)
        path = layer.normal(member.name)
        if not out.add(path) or member.kind != "file" or member.size < _TINY:
            continue
        out.files += 1
        if not layer.is_skipped(path):
            yield from look(path, member, out.notes)


def _check(out: Layer, limits: Limits) -> None:
    if out.kept > limits.kept:
        raise CutOff(f"has more names and candidates than fit into {limits.kept >> 20} MiB")


def look(path: str, member: Member, notes: list[str]) -> Iterator[Find]:
    """The candidates in one file."""
    start = member.start(min(member.size, _HEAD))
    if start.startswith(b"\x7fELF"):
        yield from _program(path, start, member.pieces(), notes)
    elif b"\0" not in start[:4096]:
        try:
            yield from text(path, start, member.pieces())
        except wording.TooMany:
            notes.append(_TOO_MUCH.format(layer.shown(path)))


def _program(path: str, head: bytes, pieces: Iterable[bytes], notes: list[str]) -> Iterator[Find]:
    program = Program(head)
    for piece in pieces:
        program.feed(piece)
    for at, found in program.candidates():
        how = "go program" if program.is_go else "program"
        yield Find(found, path, offset=at, names=found.near, how=how)
    if program.overfull:
        notes.append(_TOO_MUCH.format(layer.shown(path)))


def text(path: str, head: bytes, pieces: Iterable[bytes]) -> Iterator[Find]:
    """The candidates in a text."""
    tongue = wording.language(path, head[:128])
    line = 1
    for chunk, fresh in _windows(pieces):
        for spot in wording.spots(chunk, tongue, first_line=line):
            if spot.at < fresh:
                yield Find(
                    spot.candidate,
                    path,
                    spot.line,
                    key=spot.key,
                    names=spot.names,
                    how=tongue or "text",
                )
        line += chunk.count(b"\n", 0, fresh)


def _windows(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """The text in large pieces; only what begins in the first so many bytes of each is new."""
    gathered: list[bytes] = []
    size = 0
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= _TEXT_MAX:
            chunk = b"".join(gathered)
            fresh = len(chunk) - _OVERLAP
            yield chunk, fresh
            gathered, size = [chunk[fresh:]], _OVERLAP
    if size:
        yield (gathered[0] if len(gathered) == 1 else b"".join(gathered)), size


__all__ = ["PIECE", "look", "read", "text"]
