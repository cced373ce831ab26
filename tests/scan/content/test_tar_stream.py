"""Hostile and broken archives cost neither disk nor memory, and are said to be what they are."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import pytest
import zstandard

from kfdeploy.scan.content import layers
from kfdeploy.scan.content.layer import LayerScan
from kfdeploy.scan.content.tar_stream import DamagedStream, ScanLimits, TarReader
from tests.conftest import ROOT
from tests.support.archives import Chunks, digest, layer, pack, tar

CODE = b'DEFAULT_IMAGE = "ghcr.io/acme/hidden:1.0"\n'
REF = "ghcr.io/acme/hidden:1.0"
SMALL = ScanLimits(inflated=64 << 20, ratio=50, ratio_from=4 << 20, members=5000)


def look(content: bytes, limits: ScanLimits = SMALL, *, named: str | None = None) -> LayerScan:
    return layers.scan_layer(io.BytesIO(content), named or digest(content), len(content), limits)


def refs(found: LayerScan) -> list[str]:
    return [find.candidate.ref for find in found.candidates]


@pytest.mark.parametrize("packing", ["gzip", "zstd", "none"])
def test_a_layer_is_read_however_it_is_packed(packing: str) -> None:
    found = look(layer({"app/": None, "app/x.py": CODE}, packing))
    assert refs(found) == [REF]
    assert (found.damage, found.files, found.candidates[0].location) == ("", 1, "app/x.py:1")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_and_long_names_are_read(form: int) -> None:
    name = f"{'d' * 90}/{'e' * 80}/x.py" if form == tarfile.USTAR_FORMAT else f"{'long/' * 60}x.py"
    found = look(pack(tar({name: CODE}, form=form), "gzip"))
    assert [find.path for find in found.candidates] == [name]


def test_several_gzip_members_and_padding_are_one_layer() -> None:
    content = tar({"a.py": CODE})
    packed = gzip.compress(content[:700]) + gzip.compress(content[700:]) + b"\0" * 2000
    assert refs(look(packed)) == [REF]


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_bomb_is_given_up_early(packing: str) -> None:
    inner = tar({"app/x.py": CODE, "zeros": b"\0" * (40 << 20)})
    found = look(pack(inner, packing))
    assert "inflates to more than 50 times its size; the rest was not read" in found.damage
    assert found.trusted
    assert refs(found) == [REF]


def test_a_layer_over_the_limit_is_cut_off() -> None:
    found = look(layer({"x.py": CODE, "big": b"\0" * (80 << 20)}, "none"))
    assert "the rest was not read" in found.damage
    assert refs(found) == [REF]
    assert found.inflated_bytes > SMALL.inflated


def test_a_zstd_stream_may_not_ask_for_any_memory() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = packed.compress(tar({"x.py": CODE})) + packed.flush()
    found = look(content)
    assert "zstd window is over 64 MiB" in found.damage


def header(kind: bytes, size: int, name: str = "x") -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.type = kind
    return info.tobuf(tarfile.GNU_FORMAT)


def endless(first: bytes, piece: bytes) -> Iterator[bytes]:
    yield first
    while True:
        yield piece


@pytest.mark.parametrize(
    ("first", "piece", "said"),
    [
        (header(tarfile.REGTYPE, 1 << 40), b"\1" * 100_000, "when inflated"),
        (header(tarfile.XHDTYPE, 1 << 40), b"1" * 100_000, "when inflated"),
        (header(tarfile.GNUTYPE_LONGNAME, 1 << 40), b"n" * 100_000, "when inflated"),
        (b"", header(tarfile.REGTYPE, 0) * 100, "members"),
        (b"", (header(tarfile.REGTYPE, 0, "d/.wh.file")) * 100, "members"),
        (b"", gzip.compress(b"\0" * 10_000), ""),
    ],
    ids=["file", "pax header", "long name", "tiny files", "whiteouts", "gzip members"],
)
def test_an_endless_stream_ends_at_a_limit(first: bytes, piece: bytes, said: str) -> None:
    stream = Chunks(endless(first, piece) if first else endless(piece, piece))
    found = layers.scan_layer(stream, "", 100 << 20, SMALL)
    assert said in found.damage
    assert found.damage
    assert stream.count < 130 << 20


def test_a_blob_may_not_be_longer_than_its_manifest_says() -> None:
    content = layer({"x.py": CODE}, "none")
    stream = Chunks(endless(content, b"\0" * 100_000))
    found = layers.scan_layer(stream, digest(content), len(content), SMALL)
    assert f"has more than the {len(content)} bytes that its manifest says" in found.damage
    assert stream.count < len(content) + (2 << 20)


def test_a_huge_pax_header_is_skipped_and_said() -> None:
    body = b"1" * (3 << 20)
    content = header(tarfile.XHDTYPE, len(body)) + body + tar({"x.py": CODE})
    found = look(content)
    assert refs(found) == [REF]
    assert found.notes == [f"a header of {len(body)} bytes was skipped"]


@pytest.mark.parametrize(
    "name", ["/etc/x.py", "../../etc/x.py", "./a/../x.py", "a//./x.py", "x\x1b[31m.py"]
)
def test_a_name_leads_nowhere(name: str) -> None:
    found = look(layer({name: CODE}))
    (find,) = found.candidates
    assert not find.path.startswith("/")
    assert ".." not in find.path.split("/")
    assert "\x1b" not in find.location


def test_links_devices_and_pipes_are_not_followed() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"x{kind.decode()}.py")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    found = look(out.getvalue() + b"")
    assert (found.candidates, found.files, found.damage) == ([], 0, "")


def test_a_sparse_file_is_as_long_as_what_is_stored_of_it() -> None:
    info = bytearray(header(tarfile.GNUTYPE_SPARSE, len(CODE), "x.py"))
    info[483:495] = b"77777777777\0"  # the size that it claims to have: 8 GiB
    info[482] = 1  # its map goes on
    more = bytearray(512)
    info[148:156] = b" " * 8
    info[148:156] = b"%06o\0 " % sum(info)
    content = bytes(info) + bytes(more) + CODE + b"\0" * (-len(CODE) % 512) + tar({"y.py": CODE})
    found = look(content)
    assert [find.path for find in found.candidates] == ["x.py", "y.py"]
    assert found.damage == ""


@pytest.mark.parametrize("packing", ["gzip", "zstd", "none"])
def test_a_truncated_layer_is_damage_and_what_was_read_is_kept(packing: str) -> None:
    whole = pack(tar({"x.py": CODE, "rest": bytes(range(256)) * 4000}), packing)
    short = whole[: len(whole) // 2] if packing == "none" else whole[: len(whole) - 40]
    found = layers.scan_layer(io.BytesIO(short), digest(whole), len(whole), SMALL)
    assert found.damage
    assert found.damage.startswith(("its gzip stream", "ends", "its zstd stream")), found.damage
    assert refs(found) == [REF]


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_corrupt_layer_is_damage(packing: str) -> None:
    whole = bytearray(pack(tar({"x.py": CODE, "rest": bytes(range(256)) * 4000}), packing))
    whole[len(whole) // 2] ^= 0xFF
    whole[len(whole) // 2 + 1] ^= 0xFF
    assert look(bytes(whole), named=digest(b"other")).damage


def test_what_is_no_tar_is_said_to_be_none() -> None:
    assert (
        look(b"{}" * 5000).damage
        == "is not a tar, or a corrupt one: the checksum of a header is wrong"
    )


def test_a_layer_that_is_not_its_digest_is_not_trusted() -> None:
    content = layer({"x.py": CODE})
    found = look(content, named=digest(b"other"))
    assert found.damage == f"does not match its digest: its bytes have {digest(content)}"
    assert not found.trusted


@pytest.mark.parametrize("field", [b"-0000000001\0", b"zzzzzzzzzzz\0", b"\xff" * 12])
def test_a_size_that_is_none_is_damage(field: bytes) -> None:
    block = bytearray(header(tarfile.REGTYPE, 0))
    block[124:136] = field
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    with pytest.raises(DamagedStream):
        list(TarReader(io.BytesIO(bytes(block)), SMALL).iter_members())


def test_what_is_remembered_is_limited() -> None:
    code = "".join(f'X{n}_IMAGE = "ghcr.io/acme/n{n}:1.0"\n' for n in range(3000)).encode()
    names = {f"x{n}.py": code for n in range(3)}
    found = look(layer(names), replace(SMALL, kept=4 << 20))
    assert found.damage.startswith("has more names and candidates than fit into 4 MiB")
    alone = look(layer({"x.py": code}), replace(SMALL, kept=1 << 20))
    assert alone.damage.startswith("has more names and candidates than fit into 1 MiB")
    assert 900 < len(alone.candidates) < 1100


def test_millions_of_tiny_files_take_little_memory() -> None:
    piece = header(tarfile.REGTYPE, 0, "some/folder/with/a/name") * 2000
    tracemalloc.start()
    limits = ScanLimits(members=50_000, inflated=1 << 40)
    found = layers.scan_layer(Chunks(endless(piece, piece)), "", None, limits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "members" in found.damage
    assert peak < 8 << 20


_BIG = """
import re, sys
from pathlib import Path
from kfdeploy.scan.content import layers
from tests.scan.content.test_tar_stream import big
found = layers.scan_layer(big(int(sys.argv[1])), "", None)
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10
print(peak, len(found.candidates), found.inflated_bytes >> 20, found.damage)
"""


def big(mebibytes: int) -> Chunks:
    """A gzip layer of so many MiB in a few large files and many small ones, made as it is read."""
    import zlib

    def plain() -> Iterator[bytes]:
        yield header(tarfile.REGTYPE, (mebibytes // 2) << 20, "model.unknown")
        block = b"some words that are no image, over and over: %d\n" * 20000
        block = block[: 1 << 19]
        for _ in range(mebibytes):
            yield block
        elf = b"\x7fELF\x02\x01" + b"\0" * 58 + bytes(range(256)) * 2000
        elf = elf[: 1 << 18]
        for number in range(mebibytes * 2):
            yield header(tarfile.REGTYPE, len(elf), f"bin/program{number}") + elf
        yield tar({"x.py": CODE})

    def packed() -> Iterator[bytes]:
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        for piece in plain():
            if out := packer.compress(piece):
                yield out
        yield packer.flush()

    return Chunks(packed())


def test_memory_does_not_grow_with_a_layer() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BIG, "300"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    peak, finds, read, *damage = done.stdout.split(maxsplit=3)
    assert (int(finds), damage) == (1, []), done.stdout
    assert int(read) >= 300
    assert int(peak) < 100
