"""Bundles on disks: written, read, damaged."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.bundle import manifest as model
from kfdeploy.bundle import part_files, read_layout
from kfdeploy.bundle.layout_store import BundleOrigin
from kfdeploy.bundle.manifest import BundleFile
from kfdeploy.bundle.plan import DeliveredContents, plan_bundle
from kfdeploy.bundle.read_layout import AvailableBundle
from kfdeploy.bundle.write_layout import BundlePart, BundleWriter
from kfdeploy.errors import UserError
from kfdeploy.files import sha256_hex
from kfdeploy.images import lockfile
from kfdeploy.mirror.plan import MirrorItem
from kfdeploy.oci.manifest import Descriptor
from tests.conftest import tree as files_of
from tests.support.copying import Hashed, Made, copy, items, large, locked, small
from tests.support.standins import Standin

REFS = ("gcr.io/a/app:v1", "gcr.io/a/app:v2", "docker.io/library/redis:6", "quay.io/b/c:latest")
PART = 300_000
BIG = {
    "a.io/big:1": large("big", [700_000, 5_000]),
    "a.io/mid:1": large("mid", [100_000]),
    "a.io/sub:1": large("sub", [90_000, 10_000]),
}


def writer(
    root: Path,
    images: dict[str, Standin],
    size: int = 0,
    older: DeliveredContents | None = None,
    **more: Any,
) -> tuple[BundleWriter, list[MirrorItem], Made]:
    lock = lockfile.dumps(locked(images)).encode()
    source, listed = Made(images.values()), items(images)
    trees = [(item, source.read_tree(item)) for item in listed]
    files = {"workspace/kfdeploy.yaml": b"x: 1\n", "programs/helm": b"#!/bin/sh\n"}
    taken = [
        BundleFile(path, len(data), sha256_hex(data), executable=path.startswith("programs"))
        for path, data in files.items()
    ]

    def opener(data: bytes) -> Callable[[], Any]:
        import io

        return lambda: contextlib.closing(io.BytesIO(data))

    bundle = plan_bundle(
        trees,
        lock=sha256_hex(lock),
        kfdeploy="1",
        part_size=size,
        common=len(lock),
        files=taken,
        older=older,
    )
    manifests = {m.digest: m.body for _, tree in trees for m in tree.manifests}
    carried = {entry.digest: manifests[entry.digest] for entry in bundle.manifests}
    made = BundleWriter(
        root,
        bundle,
        manifests=carried,
        lock=lock,
        files={path: opener(data) for path, data in files.items()},
        **more,
    )
    return made, listed, source


def write(
    root: Path, images: dict[str, Standin], size: int = 0, **more: Any
) -> tuple[BundlePart, ...]:
    made, listed, source = writer(root, images, size, **more)
    with made.open_for_writing():
        assert copy(listed, source, made) == []
        return made.finish_parts()


def read(*given: Path, **more: Any) -> AvailableBundle:
    return read_layout.check_parts(read_layout.find_parts(given), **more)


def content(found: AvailableBundle, images: dict[str, Standin]) -> dict[str, bytes]:
    """All blobs, as the bundle gives them."""
    source, out = BundleOrigin(found), {}
    for item in items(images):
        for blob in source.read_tree(item).blobs:
            with source.open_blob(item, blob, 0) as stream:
                out[blob.digest] = b"".join(map(bytes, Hashed(stream, blob)))
    return out


def blobs(images: dict[str, Standin]) -> dict[str, bytes]:
    return {digest: data for image in images.values() for digest, data in image.blobs.items()}


# -- written and read ------------------------------------------------------------------------------


def test_what_is_written_is_read_and_the_same_bytes_twice(tmp_path: Path) -> None:
    images = small(*REFS)
    (part,) = write(tmp_path / "a", images)
    write(tmp_path / "b", images)
    assert (part.number, part.folder, part.state) == (1, tmp_path / "a", "written")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    found = read(tmp_path / "a", hash_blobs=True)
    assert (found.problems, found.missing, found.is_signed) == ((), (), False)
    assert content(found, images) == blobs(images)
    assert os.access(tmp_path / "a" / "programs" / "helm", os.X_OK)


def test_sha256sum_agrees(tmp_path: Path) -> None:
    for part in write(tmp_path, BIG, PART):
        done = subprocess.run(
            ["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"],
            cwd=part.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        listed = set(part_files.list_files(part.folder)[0]) - {"SHA256SUMS"}
        said = (part.folder / "SHA256SUMS").read_text().splitlines()
        assert {line[66:] for line in said} == listed


def test_a_part_takes_no_more_of_a_disk_than_it_may(tmp_path: Path) -> None:
    parts = write(tmp_path, {**BIG, **small(*REFS)}, PART)
    assert len(parts) > 3
    for part in parts:
        sizes = part_files.list_files(part.folder)[0].values()
        assert sum(-(-size // 4096) * 4096 for size in sizes) <= PART


def test_a_split_blob_is_one_again_from_any_byte_on(tmp_path: Path) -> None:
    write(tmp_path, BIG, PART)
    found = read(tmp_path)
    big = items(BIG)[0]
    blob = max(BundleOrigin(found).read_tree(big).blobs, key=lambda one: one.size)
    placed = found.bundle.by_digest[blob.digest]
    assert len(placed.pieces) > 2
    first = placed.pieces[0][1]
    data = BIG["a.io/big:1"].blobs[blob.digest]
    for offset in (0, 1, first - 1, first, first + 1, blob.size - 1, blob.size):
        with BundleOrigin(found).open_blob(big, blob, offset) as stream:
            buffer, got = memoryview(bytearray(7001)), b""
            while count := stream.readinto(buffer):
                got += bytes(buffer[:count])
        assert got == data[offset:]
    assert content(found, BIG) == blobs(BIG)


def test_parts_are_read_in_any_order_and_place(tmp_path: Path) -> None:
    parts = write(tmp_path / "all", BIG, PART)
    for part in parts:
        (tmp_path / f"disk{9 - part.number}").mkdir()
        shutil.copytree(part.folder, tmp_path / f"disk{9 - part.number}", dirs_exist_ok=True)
        (tmp_path / f"disk{9 - part.number}" / "lost+found").mkdir()
    disks = sorted(tmp_path.glob("disk*"))
    assert len(disks) == len(parts)
    assert content(read(*disks), BIG) == blobs(BIG)


def test_writing_again_fetches_nothing(tmp_path: Path) -> None:
    write(tmp_path, BIG, PART)
    before = files_of(tmp_path)
    made, listed, source = writer(tmp_path, BIG, PART)
    with made.open_for_writing():
        copy(listed, source, made)
        assert {part.state for part in made.finish_parts()} == {"present"}
    assert (source.opened, files_of(tmp_path)) == ([], before)


def test_a_lost_part_is_written_again_alone(tmp_path: Path) -> None:
    parts = write(tmp_path / "a", BIG, PART)
    before = files_of(tmp_path / "a")
    shutil.rmtree(parts[1].folder)
    made, listed, source = writer(tmp_path / "a", BIG, PART)
    with made.open_for_writing():
        copy(listed, source, made)
        assert [part.state for part in made.finish_parts()].count("written") == 1
    assert files_of(tmp_path / "a") == before
    wanted = {b.digest for b in made.bundle.blobs if 2 in {part for part, _ in b.pieces}}
    assert set(source.opened) == wanted
    made, listed, source = writer(tmp_path / "b", BIG, PART, only=[2])
    with made.open_for_writing():
        copy(listed, source, made)
        made.finish_parts()
    assert set(source.opened) == wanted
    assert files_of(tmp_path / "b") == {n: d for n, d in before.items() if n.startswith("part-002")}


def test_another_size_of_parts_moves_the_blobs(tmp_path: Path) -> None:
    images = {**BIG, **small(*REFS)}
    write(tmp_path / "a", images)
    write(tmp_path / "b", images, 2 * PART)
    made, listed, source = writer(tmp_path / "a", images, 2 * PART)
    with made.open_for_writing():
        copy(listed, source, made)
        made.finish_parts()
    split = {blob.digest for blob in made.bundle.blobs if len(blob.pieces) > 1}
    assert set(source.opened) == split
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    made, listed, source = writer(tmp_path / "a", images)
    with made.open_for_writing():
        copy(listed, source, made)
        made.finish_parts()
    assert set(source.opened) == split
    write(tmp_path / "c", images)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "c")


def test_another_lock_keeps_what_both_have_and_removes_the_rest(tmp_path: Path) -> None:
    old, new = small(*REFS[:3]), small(*REFS[1:])
    write(tmp_path / "a", old)
    made, listed, source = writer(tmp_path / "a", new)
    with made.open_for_writing():
        copy(listed, source, made)
        made.finish_parts()
    assert set(source.opened) == blobs(new).keys() - blobs(old).keys()
    assert made.notes == [f"{tmp_path / 'a'}: had another bundle; files of both are kept"]
    write(tmp_path / "b", new)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


# -- not finished ----------------------------------------------------------------------------------


def test_what_lacks_a_blob_is_not_finished(tmp_path: Path) -> None:
    images = small(*REFS)
    made, listed, source = writer(tmp_path, images)
    lost = next(iter(images[REFS[0]].blobs))
    source.gone.add(lost)
    with made.open_for_writing():
        failed = copy(listed, source, made)
        (part,) = made.finish_parts()
    assert failed
    assert (part.state, part.missing) == ("unfinished", 1)
    assert not (tmp_path / "index.json").exists()
    with pytest.raises(UserError) as error:
        read(tmp_path)
    assert error.value.message == f"{tmp_path}: not finished: it has no SHA256SUMS"
    source.gone.clear()
    source.opened.clear()
    with made.open_for_writing():
        copy(listed, source, made)
        made.finish_parts()
    assert source.opened == [lost]
    assert content(read(tmp_path, hash_blobs=True), images) == blobs(images)


def test_content_that_is_not_its_digest_leaves_nothing(tmp_path: Path) -> None:
    images = small(*REFS)
    made, listed, source = writer(tmp_path, images)
    bad = next(iter(images[REFS[0]].blobs))
    source.blobs[bad] = source.blobs[bad][:-1] + b"?"
    with made.open_for_writing():
        copy(listed, source, made)
    assert not (tmp_path / model.blob_path(bad)).exists()
    assert list(tmp_path.rglob(".*")) == []


def test_a_blob_of_another_length_than_its_manifest_says_is_refused(tmp_path: Path) -> None:
    images = {"a.io/x:1": large("x", [1000])}
    made, listed, source = writer(tmp_path, images)
    blob = max(source.read_tree(listed[0]).blobs, key=lambda one: one.size)
    short = Descriptor(blob.digest, 900, blob.media_type)
    with made.open_for_writing(), source.open_blob(listed[0], blob, 0) as stream:
        made.bundle.by_digest[blob.digest]
        for size in (999, 1001):
            other = Descriptor(blob.digest, size, blob.media_type)
            with pytest.raises(UserError) as error, contextlib.ExitStack() as stack:
                stream = stack.enter_context(source.open_blob(listed[0], blob, 0))
                targets = [(tmp_path / "x", size)]
                part_files.spread_pieces(stack, Hashed(stream, blob), targets, other)
            assert error.value.message == (
                f"{blob.digest}: its size is not the {size} bytes that its manifest says"
            )
    assert short.size == 900 and not (tmp_path / "x").exists()


def test_two_writers_of_one_bundle_are_refused(tmp_path: Path) -> None:
    first, _, _ = writer(tmp_path, BIG)
    second, _, _ = writer(tmp_path, BIG)
    with first.open_for_writing(), pytest.raises(UserError) as error, second.open_for_writing():
        pass
    assert error.value.message == f"{tmp_path}: another kfdeploy is writing this bundle"


@pytest.mark.parametrize("name", ["notes.txt", "part-001/notes.txt"])
def test_somebody_elses_folder_is_not_written_into(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    made, _, _ = writer(tmp_path, BIG, PART)
    with pytest.raises(UserError) as error, made.open_for_writing():
        pass
    assert error.value.message == f"{tmp_path / name}: not part of a bundle"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]


def test_another_tools_layout_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "oci-layout").write_text("{}")
    made, _, _ = writer(tmp_path, BIG)
    with pytest.raises(UserError) as error, made.open_for_writing():
        pass
    assert error.value.message == f"{tmp_path}: not a bundle: it has oci-layout but no bundle.json"


def test_links_in_a_bundle_are_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "blobs").symlink_to(tmp_path)
    made, _, _ = writer(tmp_path / "b", BIG)
    with pytest.raises(UserError) as error, made.open_for_writing():
        pass
    assert error.value.message == f"{tmp_path / 'b' / 'blobs'}: a link, not part of a bundle"


_KILLED = """\
import sys, time
from pathlib import Path
from tests.bundle.test_layout import BIG, PART, REFS, copy, small, writer
made, listed, source = writer(Path(sys.argv[1]), {**BIG, **small(*REFS)}, PART)
real = made.put_blob
def slow(*arguments):
    time.sleep(0.003)
    real(*arguments)
made.put_blob = slow
print("ready", flush=True)
with made.open_for_writing():
    copy(listed, source, made)
    made.finish_parts()
"""


def test_killed_at_any_moment_it_never_looks_whole_and_goes_on(tmp_path: Path) -> None:
    images = {**BIG, **small(*REFS)}
    write(tmp_path / "whole", images, PART)
    whole = files_of(tmp_path / "whole")
    root = tmp_path / "b"
    for number in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", _KILLED, str(root)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.015 * number * number)
        process.kill()
        process.wait()
        process.stdout.close()
        there = files_of(root) if root.exists() else {}
        for name in there:
            folder = name.partition("/")[0]
            if name.endswith("/index.json"):
                held = {n for n in there if n.startswith(f"{folder}/blobs")}
                assert held == {n for n in whole if n.startswith(f"{folder}/blobs")}
            if name.endswith("/SHA256SUMS"):
                of_part = {n: d for n, d in there.items() if n.startswith(f"{folder}/")}
                assert of_part == {n: d for n, d in whole.items() if n.startswith(f"{folder}/")}
    write(root, images, PART)
    assert files_of(root) == whole


# -- full disks ------------------------------------------------------------------------------------


@pytest.fixture
def little_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_without_the_room_is_said_before_anything_is_fetched(little_disk: Path) -> None:
    made, _, _ = writer(little_disk, {"a.io/x:1": large("x", [600_000, 600_000])})
    with pytest.raises(UserError) as error, made.open_for_writing():
        pass
    assert re.fullmatch(
        f"{little_disk}: 1.2 MiB are to be written and the disk has 1.0 MiB free:"
        r" 1\d\d.0 KiB are missing",
        error.value.message,
    )
    assert list(little_disk.iterdir()) == []


def test_a_disk_that_gets_full_keeps_what_is_whole(little_disk: Path) -> None:
    images = {"a.io/x:1": large("x", [300_000, 300_000])}
    made, listed, source = writer(little_disk, images)
    with made.open_for_writing():
        (little_disk.parent / "disk" / "lost+found").mkdir()
        (little_disk / "lost+found" / "other").write_bytes(bytes(600_000))
        failed = copy(listed, source, made)
        (part,) = made.finish_parts()
    (one,) = failed
    assert re.fullmatch(
        rf"{little_disk}: the disk is full: 1\d\d.0 KiB more are needed for what is still to be"
        " written, 293.0 KiB",
        one.error.message,
    )
    assert (part.state, part.missing) == ("unfinished", 1)
    assert list(little_disk.rglob(".*")) == []
    (little_disk / "lost+found" / "other").unlink()
    source.opened.clear()
    with made.open_for_writing():
        copy(listed, source, made)
        made.finish_parts()
    assert len(source.opened) == 1
    assert content(read(little_disk, hash_blobs=True), images) == blobs(images)


# -- damaged ---------------------------------------------------------------------------------------


def one_blob(folder: Path) -> str:
    """The first blob that is no manifest."""
    bundle = model.loads((folder / "bundle.json").read_bytes())
    return model.blob_path(bundle.blobs[0].digest)


def problems(*given: Path, **more: Any) -> list[str]:
    try:
        return [error.message for error in read(*given, **more).problems]
    except UserError as error:
        return [one.message for one in error.list_errors()]


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def flipped(data: bytes) -> bytes:
    return data[:-2] + bytes([data[-2] ^ 1]) + data[-1:]


def test_a_file_too_many_is_named(tmp_path: Path) -> None:
    write(tmp_path, small(*REFS))
    (tmp_path / "blobs" / "sha256" / "more").write_text("x")
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "evil.whl").write_text("x")
    assert problems(tmp_path) == [
        f"{tmp_path}/blobs/sha256/more: nothing of the bundle",
        f"{tmp_path}/wheels/evil.whl: nothing of the bundle",
    ]


@pytest.mark.parametrize(
    "name", ["oci-layout", "index.json", "images.lock", "programs/helm", "workspace/kfdeploy.yaml"]
)
def test_a_changed_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, small(*REFS))
    rewrite(tmp_path / name, flipped)
    assert problems(tmp_path) == [f"{tmp_path / name}: changed: it is not what SHA256SUMS says"]


@pytest.mark.parametrize("name", ["bundle.json", "part.json"])
def test_a_changed_description_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, small(*REFS))
    rewrite(tmp_path / name, flipped)
    assert problems(tmp_path) == [f"{tmp_path / name}: changed: it is not what SHA256SUMS says"]


@pytest.mark.parametrize(
    "name", ["oci-layout", "index.json", "images.lock", "programs/helm", "bundle.json", "part.json"]
)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, small(*REFS))
    (tmp_path / name).unlink()
    assert problems(tmp_path) == [f"{tmp_path / name}: missing"]


def test_a_missing_and_a_cut_blob_are_named_and_cost_their_images_alone(tmp_path: Path) -> None:
    images = {"a.io/x:1": large("x", [1000]), "a.io/y:1": large("y", [1000])}
    write(tmp_path, images)
    source = Made(images.values())
    cut, lost = (blob.digest for blob in source.read_tree(items(images)[0]).blobs)
    rewrite(tmp_path / model.blob_path(cut), lambda data: data[:-1])
    (tmp_path / model.blob_path(lost)).unlink()
    found = read(tmp_path)
    assert [error.message for error in found.problems] == sorted(
        [
            f"{tmp_path / model.blob_path(cut)}: has 99 bytes instead of 100",
            f"{tmp_path / model.blob_path(lost)}: missing",
        ]
    )
    x, y = items(images)
    assert found.list_needed_parts(BundleOrigin(found).read_tree(x).blobs) == (1,)
    assert found.list_needed_parts(BundleOrigin(found).read_tree(y).blobs) == ()
    with pytest.raises(UserError) as error:
        BundleOrigin(found).open_blob(x, Descriptor(lost, 1000, ""), 0)
    assert error.value.message == f"{tmp_path / model.blob_path(lost)} is missing or cut off"


def test_a_blob_with_other_bytes_is_named_when_all_is_hashed(tmp_path: Path) -> None:
    write(tmp_path, small(*REFS))
    name = one_blob(tmp_path)
    rewrite(tmp_path / name, flipped)
    assert problems(tmp_path) == []
    assert problems(tmp_path, hash_blobs=True) == [
        f"{tmp_path / name}: changed: it is not what SHA256SUMS says"
    ]


def test_a_changed_piece_of_a_blob_is_named_when_all_is_hashed(tmp_path: Path) -> None:
    parts = write(tmp_path, BIG, PART)
    (piece,) = (parts[1].folder / "pieces" / "sha256").iterdir()
    rewrite(piece, flipped)
    assert problems(tmp_path, hash_blobs=True) == [
        f"{piece}: changed: it is not what SHA256SUMS says"
    ]


def test_sums_that_name_another_sum_than_the_blobs_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, small(*REFS))
    name = one_blob(tmp_path)
    rewrite(
        tmp_path / "SHA256SUMS",
        lambda data: data.replace(f"{name[-64:]}  blobs".encode(), b"0" * 64 + b"  blobs"),
    )
    assert problems(tmp_path) == [
        f"{tmp_path / name}: SHA256SUMS and bundle.json say different sums"
    ]


def test_a_list_that_leaves_out_a_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, small(*REFS))
    rewrite(
        tmp_path / "SHA256SUMS",
        lambda data: b"".join(
            line for line in data.splitlines(keepends=True) if b"programs" not in line
        ),
    )
    assert problems(tmp_path) == [f"{tmp_path}/SHA256SUMS: does not list programs/helm"]


def test_a_list_that_leads_out_of_the_part_is_refused(tmp_path: Path) -> None:
    write(tmp_path, small(*REFS))
    rewrite(tmp_path / "SHA256SUMS", lambda data: data + b"0" * 64 + b"  ../secret\n")
    count = len((tmp_path / "SHA256SUMS").read_bytes().splitlines())
    assert problems(tmp_path) == [
        f"{tmp_path}/SHA256SUMS: line {count}: '../secret' is not a path below the folder"
    ]


@pytest.mark.parametrize("kind", ["link", "pipe", "linked folder"])
def test_links_and_special_files_are_refused(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "b"
    write(root, small(*REFS))
    path = root / one_blob(root)
    if kind == "linked folder":
        path = root / "blobs" / "sha256"
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.unlink()
        os.mkfifo(path)
    what = "neither file nor folder" if kind == "pipe" else "a link"
    assert f"{path}: {what}, and nothing of the bundle" in problems(root)


def test_a_part_of_another_bundle_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a", BIG, PART)
    write(tmp_path / "b", {**BIG, **small(*REFS)}, PART)
    mixed = [tmp_path / "a" / "part-001", tmp_path / "b" / "part-002"]
    assert problems(*mixed) == [f"{mixed[1]} is a part of another bundle than {mixed[0]}"]
    shutil.copy(mixed[0] / "part.json", mixed[1] / "part.json")
    rewrite(
        mixed[1] / "SHA256SUMS",
        lambda data: b"".join(
            sha256_hex((mixed[0] / "part.json").read_bytes()).encode() + b"  part.json\n"
            if line.endswith(b"part.json\n")
            else line
            for line in data.splitlines(keepends=True)
        ),
    )
    assert problems(mixed[1]) == [f"{mixed[1]}/part.json: is a part of another bundle"]


def test_a_lost_part_costs_what_lies_in_it_and_is_named(tmp_path: Path) -> None:
    parts = write(tmp_path, BIG, PART)
    shutil.rmtree(parts[1].folder)
    rewrite(parts[0].folder / "index.json", flipped)
    found = read(tmp_path)
    assert found.missing == (1, 2)
    source = BundleOrigin(found)
    whole = [i.name for i in items(BIG) if not found.list_needed_parts(source.read_tree(i).blobs)]
    assert whole == ["a.io/mid:1", "a.io/sub:1"]
    big = items(BIG)[0]
    blob = max(source.read_tree(big).blobs, key=lambda one: one.size)
    with pytest.raises(UserError) as error:
        source.open_blob(big, blob, 0)
    assert error.value.message == f"{blob.digest} is in part 2 of the bundle, which is not here"


def test_a_sound_copy_of_a_part_takes_the_place_of_a_damaged_one(tmp_path: Path) -> None:
    write(tmp_path / "a", BIG)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    rewrite(tmp_path / "a" / "index.json", flipped)
    found = read(tmp_path / "a", tmp_path / "b")
    assert found.parts[1].folder == tmp_path / "b"
    assert len(found.problems) == 1


def test_a_disk_that_is_taken_away_is_said(tmp_path: Path) -> None:
    images = {"a.io/x:1": large("x", [1000])}
    write(tmp_path / "b", images)
    source, (item,) = BundleOrigin(read(tmp_path / "b")), items(images)
    blob = source.read_tree(item).blobs[0]
    shutil.rmtree(tmp_path / "b")
    with pytest.raises(UserError) as error, source.open_blob(item, blob, 0):
        pass
    assert error.value.message == (
        f"{tmp_path / 'b' / model.blob_path(blob.digest)}: no such file or directory"
    )


def test_a_folder_without_a_bundle_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path)
    assert error.value.message == (
        f"--from-bundle {tmp_path}: has neither bundle.json nor folders that have one"
    )
    with pytest.raises(UserError) as error:
        read(tmp_path / "no")
    assert error.value.message == f"--from-bundle {tmp_path / 'no'}: no such folder"


def test_signatures_are_asked_for_before_anything_is_believed(tmp_path: Path) -> None:
    def verify(data: bytes, signature: bytes) -> None:
        if signature != b"signed " + sha256_hex(data).encode():
            raise UserError("the signature is not by k.pub")

    write(tmp_path, small(*REFS))
    assert problems(tmp_path, verify=verify) == [
        f"{tmp_path}: is not signed, and only a signed bundle is taken"
    ]
    made, _, _ = writer(tmp_path, small(*REFS))
    with made.open_for_writing():
        made.finish_parts(lambda data: b"signed " + sha256_hex(data).encode())
    assert read(tmp_path, verify=verify).is_signed
    (tmp_path / "bundle.json").write_text("{}")
    sums = tmp_path / "SHA256SUMS"
    sums.write_text(f"{sha256_hex(b'{}')}  bundle.json\n")
    assert problems(tmp_path, verify=verify) == [f"{sums}: the signature is not by k.pub"]


# -- deltas ----------------------------------------------------------------------------------------


def test_a_delta_says_what_it_expects_to_be_there(tmp_path: Path) -> None:
    old = {REFS[0]: BIG["a.io/mid:1"]}
    extra = {"a.io/mid:2": BIG["a.io/mid:1"], "a.io/sub:1": BIG["a.io/sub:1"]}
    source = Made(old.values())
    older = DeliveredContents.from_items(
        "1" * 64, [(item, source.read_tree(item)) for item in items(old)]
    )
    write(tmp_path, extra, older=older)
    found = read(tmp_path, hash_blobs=True)
    assert set(found.bundle.expected.values()) == {("gcr.io/a/app",)}
    assert found.bundle.expected.keys() == BIG["a.io/mid:1"].blobs.keys()
    mid = items(extra)[0]
    blob = BundleOrigin(found).read_tree(mid).blobs[0]
    with pytest.raises(UserError) as error:
        BundleOrigin(found).open_blob(mid, blob, 0)
    assert error.value.message == (
        f"{blob.digest} is not in the bundle, which builds on an older lock: the private registry"
        " must have it (gcr.io/a/app)"
    )


# -- other tools -----------------------------------------------------------------------------------


def test_index_names_every_image_in_order(tmp_path: Path) -> None:
    write(tmp_path, small(*REFS))
    names = [
        entry["annotations"][model.FULL_NAME]
        for entry in json.loads((tmp_path / "index.json").read_text())["manifests"]
    ]
    assert names == sorted(REFS)
