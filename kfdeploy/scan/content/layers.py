"""A layer's files, each looked into as far as its kind makes sense, in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from kfdeploy.scan.content import layer
from kfdeploy.scan.content import text as wording
from kfdeploy.scan.content.binary import BinaryScanner
from kfdeploy.scan.content.layer import LayerScan, LocatedCandidate
from kfdeploy.scan.content.tar_stream import (
    PIECE,
    ArchiveStream,
    DamagedStream,
    InflatedStream,
    LimitExceeded,
    ScanLimits,
    TarMember,
    TarReader,
    VerifyingStream,
)

_HEAD: Final = 64 << 10
_TEXT_MAX: Final = 4 << 20
"""A longer text is looked at in pieces of this size."""
_OVERLAP: Final = 2048
_TINY: Final = 8
_TOO_MUCH: Final = "{}: too much in it looks like a reference; some was left"


def scan_layer(
    stream: ArchiveStream, digest: str, size: int | None, limits: ScanLimits | None = None
) -> LayerScan:
    """Look through a layer.

    Args:
        stream: its bytes, packed or not.
        digest: that they must have; empty when nobody said one.
        size: that they must have; None when nobody said one.

    Returns:
        What was found. A layer that is damaged or cut off at a limit has that in ``damage``.
    """
    limits = limits or ScanLimits()
    out = LayerScan(digest)
    blob = VerifyingStream(stream, digest, size)
    inflated = None
    try:
        inflated = InflatedStream(blob, limits)
        tar = TarReader(inflated, limits)
        for find in _scan_members(tar, out, limits):
            out.add_candidate(find)
            _check_kept(out, limits)  # here too: one file may be full of them
        out.notes += tar.notes
        blob.finish()
        out.actual_digest = blob.actual_digest
    except LimitExceeded as reason:
        out.damage = f"{reason}; the rest of it was not read"
    except DamagedStream as reason:
        out.damage = str(reason)
        out.trusted = "not its digest" not in out.damage
    if inflated is not None:
        out.inflated_bytes = inflated.count
    out.candidates = layer.best_candidates(out.candidates)
    return out


def _scan_members(tar: TarReader, out: LayerScan, limits: ScanLimits) -> Iterator[LocatedCandidate]:
    for member in tar.iter_members():
        _check_kept(out, limits)
        path = layer.normalize_path(member.name)
        if not out.add_member(path) or member.kind != "file" or member.size < _TINY:
            continue
        out.files += 1
        if not layer.is_skipped(path):
            yield from scan_file(path, member, out.notes)


def _check_kept(out: LayerScan, limits: ScanLimits) -> None:
    if out.kept > limits.kept:
        raise LimitExceeded(f"has more names and candidates than fit into {limits.kept >> 20} MiB")


def scan_file(path: str, member: TarMember, notes: list[str]) -> Iterator[LocatedCandidate]:
    """The candidates in one file."""
    start = member.peek_content(min(member.size, _HEAD))
    if start.startswith(b"\x7fELF"):
        yield from _scan_program(path, start, member.iter_content(), notes)
    elif b"\0" not in start[:4096]:
        try:
            yield from scan_text(path, start, member.iter_content())
        except wording.TooManyCandidates:
            notes.append(_TOO_MUCH.format(layer.escape_path(path)))


def _scan_program(
    path: str, head: bytes, pieces: Iterable[bytes], notes: list[str]
) -> Iterator[LocatedCandidate]:
    program = BinaryScanner(head)
    for piece in pieces:
        program.feed(piece)
    for at, found in program.find_candidates():
        how = "go program" if program.is_go else "program"
        yield LocatedCandidate(found, path, offset=at, names=found.near, how=how)
    if program.overfull:
        notes.append(_TOO_MUCH.format(layer.escape_path(path)))


def scan_text(path: str, head: bytes, pieces: Iterable[bytes]) -> Iterator[LocatedCandidate]:
    """The candidates in a text."""
    tongue = wording.detect_language(path, head[:128])
    line = 1
    for chunk, fresh in _split_text(pieces):
        for spot in wording.find_candidates(chunk, tongue, first_line=line):
            if spot.at < fresh:
                yield LocatedCandidate(
                    spot.candidate,
                    path,
                    spot.line,
                    key=spot.key,
                    names=spot.names,
                    how=tongue or "text",
                )
        line += chunk.count(b"\n", 0, fresh)


def _split_text(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
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


__all__ = ["PIECE", "scan_file", "scan_layer", "scan_text"]
