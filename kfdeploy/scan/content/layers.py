"""Scan the files of a layer for candidates, in one pass over the layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from kfdeploy.scan.content import layer, text
from kfdeploy.scan.content.binary import BinaryScanner
from kfdeploy.scan.content.layer import LayerScan, LocatedCandidate
from kfdeploy.scan.content.tar_stream import (
    ArchiveStream,
    DamagedStream,
    InflatedStream,
    LimitExceeded,
    ScanLimits,
    TarMember,
    TarReader,
    VerifyingStream,
    WrongDigest,
)

_HEAD: Final = 64 << 10
_TEXT_MAX: Final = 4 << 20
"""Longer texts are scanned in pieces of this size."""
_OVERLAP: Final = 2048
_TINY: Final = 8
_TOO_MUCH: Final = "{}: too many texts look like a reference; the rest was skipped"


def scan_layer(
    stream: ArchiveStream, digest: str, size: int | None, limits: ScanLimits | None = None
) -> LayerScan:
    """Scan a layer.

    Args:
        stream: the layer's bytes: a tar, plain or compressed with gzip or zstd.
        digest: the digest that the bytes must have; empty if it is unknown.
        size: the number of bytes that there must be; None if it is unknown.
        limits: where to stop.

    Returns:
        The result; ``damage`` says if the layer is damaged or exceeds a limit.
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
            _check_kept(out, limits)  # here, too: one file may be full of candidates
        out.notes += tar.notes
        blob.finish()
        out.actual_digest = blob.actual_digest
    except LimitExceeded as reason:
        out.damage = f"{reason}; the rest was not read"
    except DamagedStream as reason:
        out.damage = str(reason)
        out.trusted = not isinstance(reason, WrongDigest)
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
    """Yield the candidates in one file."""
    start = member.peek_content(min(member.size, _HEAD))
    if start.startswith(b"\x7fELF"):
        yield from _scan_program(path, start, member.iter_content(), notes)
    elif b"\0" not in start[:4096]:
        try:
            yield from scan_text(path, start, member.iter_content())
        except text.TooManyCandidates:
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
    """Yield the candidates in a text."""
    language = text.detect_language(path, head[:128])
    line = 1
    for chunk, fresh in _split_text(pieces):
        for spot in text.find_candidates(chunk, language, first_line=line):
            if spot.at < fresh:
                yield LocatedCandidate(
                    spot.candidate,
                    path,
                    spot.line,
                    key=spot.key,
                    names=spot.names,
                    how=language or "text",
                )
        line += chunk.count(b"\n", 0, fresh)


def _split_text(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield a text in large overlapping pieces, each with the number of its new bytes."""
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
