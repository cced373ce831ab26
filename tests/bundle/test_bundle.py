"""Bundles between real registries: over the gap, by the engine that mirrors."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.bundle import read
from kfdeploy.bundle import write as bundle_write
from kfdeploy.bundle.write_layout import BundlePart
from kfdeploy.cache import Cache
from kfdeploy.errors import UserError
from kfdeploy.files import sha256_hex
from kfdeploy.images import lockfile
from kfdeploy.images.lockfile import Lock, LockedImage
from kfdeploy.images.naming import MirrorNaming
from kfdeploy.mirror import mirror
from kfdeploy.mirror.plan import MirrorSummary, list_mirror_items
from kfdeploy.oci.attachments import Attachment
from kfdeploy.oci.manifest import Descriptor, Manifest, select_platforms
from kfdeploy.oci.reference import ImageRef
from kfdeploy.workspace.settings import Workspace
from tests.conftest import need_programs
from tests.conftest import tree as files_of
from tests.support.copying import Made, Pushed, copy, items, large, locked, small
from tests.support.refs import written
from tests.support.registries import Registry, serve_registry
from tests.support.standins import Standin, make_standin

IMAGES = {
    **small("gcr.io/a/app:v1", "docker.io/library/redis:6", "quay.io/b/c:latest"),
    "a.io/big:1": large("big", [700_000, 5_000]),
    "a.io/mid:1": large("mid", [200_000]),
    "a.io/sub:1": large("sub", [190_000, 10_000]),
}
LOCK = locked(IMAGES)
PART = 400_000
TOGETHER = "parts 1, 2 and 3 together, as one of its blobs is split"


@pytest.fixture(autouse=True)
def no_own_sign_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker-config"))


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with serve_registry(tmp_path_factory.mktemp("public") / "data") as registry:
        push(registry, IMAGES)
        yield registry


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Registry]:
    with serve_registry(tmp_path / "private") as registry:
        yield registry


def push(registry: Registry, images: dict[str, Standin]) -> None:
    """Into the registry where `registries.sources` looks for them."""
    listed = [
        replace(
            item,
            target=replace(item.target, repository=ImageRef(registry.host, item.source.repository)),
        )
        for item in items(images)
    ]
    assert copy(listed, Made(images.values()), Pushed(registry.host)) == []


def workspace(source: str, private: str, platforms: Sequence[str] = (), **more: Any) -> Workspace:
    return Workspace.model_validate(
        {
            "upstream": {"source": "upstream"},
            "components": [{"name": "a", "path": "a"}],
            "environments": {"default": {"platforms": list(platforms)}},
            "registries": {
                "private": {"host": private, "prefix": "kf", **more},
                "sources": {"*": source},
            },
        }
    )


def write(
    root: Path,
    public: Registry,
    to: Path,
    lock: Lock = LOCK,
    *,
    older: Lock | None = None,
    platforms: Sequence[str] = (),
    **wish: Any,
) -> tuple[tuple[BundlePart, ...], MirrorSummary, list[str]]:
    space = workspace(public.host, "r.test:5000", platforms)
    settings = space.resolve_mirror_settings(space.environments["default"])
    registry, sources = settings.private, settings.sources
    root.mkdir(exist_ok=True)
    (root / "images.lock").write_text(lockfile.dumps(lock))
    with mirror.open_endpoints(settings, root, Cache(root / "cache")) as sides:
        known, notes = None, list[str]()
        if older is not None:
            known, notes = bundle_write.find_delivered(
                lockfile.dumps(older).encode(),
                list_mirror_items(older, registry, sources),
                lambda item: sides.manifests.get_cached_tree(item.source.digest, item.platforms),
                sides.origin,
            )
        prepared = bundle_write.prepare_bundle(
            list_mirror_items(lock, registry, sources, settings.platforms),
            lock,
            root,
            bundle_write.BundleOptions(to, images_only=True, **wish),
            sides.origin,
            older=known,
        )
        with prepared.writer.open_for_writing():
            summary = mirror.run_mirror(
                prepared.build_plan(), prepared.origin, prepared.writer, jobs=3
            )
            parts = prepared.finish_parts(None)
    failed = (*prepared.failed, *summary.failed)
    return parts, replace(summary, failed=failed), [*notes, *prepared.notes]


class Unmounting:
    """A registry that mounts no blob across its repositories."""

    def __init__(self, destination: Any) -> None:
        self._destination = destination

    def __getattr__(self, name: str) -> Any:
        return getattr(self._destination, name)

    def mount_blob(self, place: str, blob: Descriptor, other: str) -> str:
        return ""


def arrive(
    root: Path, private: Registry, *given: Path, mounts: bool = True, **more: Any
) -> tuple[MirrorSummary, list[str]]:
    """Push what is in these folders; returns that, and what was said before."""
    space = workspace("none.test", private.host, **more)
    settings = space.resolve_mirror_settings(space.environments["default"])
    names = MirrorNaming(settings.private)
    opened = read.open_bundle(given)
    with mirror.open_endpoints(settings, root, Cache(root / "cache")) as sides:
        plan = mirror.plan_mirror(opened.lock, settings, client=sides.client)
        arrival = read.prepare_import(
            opened,
            plan,
            sides.destination if mounts else Unmounting(sides.destination),
            lambda path: f"{names.host}/{names.repository_path(path)}",
            lambda path, digest, offset: sides.client.open_blob(
                ImageRef(names.host, path), digest, offset=offset
            ),
        )
        summary = mirror.run_mirror(
            plan, arrival.origin, arrival.destination, jobs=3, known=arrival.known
        )
    return summary, [*opened.list_notes(None, is_verified=False), *arrival.notes]


def in_registry(private: Registry, images: dict[str, Standin]) -> dict[str, bool]:
    """Whether each image is there, at its digest."""
    there = Pushed(private.host)
    return {
        item.name: there.digest(item.repository.path, item.push_tag) == item.digest
        for item in items(images, private.host)
    }


def test_over_the_gap_everything_arrives_at_its_digest(
    public: Registry, private: Registry, tmp_path: Path
) -> None:
    parts, summary, _ = write(tmp_path / "site", public, tmp_path / "b")
    assert [part.state for part in parts] == ["written"]
    assert (len(summary.copied), summary.failed) == (len(IMAGES), ())
    arrived, notes = arrive(tmp_path / "far", private, tmp_path / "b")
    assert (len(arrived.copied), arrived.failed, notes) == (len(IMAGES), (), [])
    assert all(in_registry(private, IMAGES).values())
    again, _ = arrive(tmp_path / "far", private, tmp_path / "b")
    assert (again.copied, len(again.present)) == ((), len(IMAGES))


def test_the_bundle_does_not_depend_on_the_registries(public: Registry, tmp_path: Path) -> None:
    write(tmp_path / "site", public, tmp_path / "b", part_size=PART)
    with serve_registry(tmp_path / "other") as other:
        push(other, IMAGES)
        write(tmp_path / "site", other, tmp_path / "c", part_size=PART)
    assert files_of(tmp_path / "b") == files_of(tmp_path / "c")
    for data in files_of(tmp_path / "b").values():
        assert public.host.encode() not in data and b"r.test" not in data


def test_disks_may_come_one_after_the_other_in_any_order(
    public: Registry, private: Registry, tmp_path: Path
) -> None:
    parts, _, _ = write(tmp_path / "site", public, tmp_path / "b", part_size=PART)
    assert len(parts) == 4
    for part in reversed(parts[1:]):
        summary, notes = arrive(tmp_path / "far", private, part.folder)
        assert notes[0].startswith("parts ")
        assert {one.item.name for one in summary.failed} == {
            name for name, there in in_registry(private, IMAGES).items() if not there
        }
    missing = [name for name, there in in_registry(private, IMAGES).items() if not there]
    assert missing
    assert [one.error.message for one in summary.failed if one.item.name == "a.io/big:1"] == [
        f"a.io/big:1: needs parts 1 and 3 of the bundle, which are not here or damaged; {TOGETHER}"
    ]
    # What was split needs all its pieces at a time; the rest is there from the runs before.
    summary, _ = arrive(tmp_path / "far", private, parts[0].folder)
    assert [one.item.name for one in summary.failed] == ["a.io/big:1"]
    summary, _ = arrive(tmp_path / "far", private, *(part.folder for part in parts))
    assert (summary.failed, all(in_registry(private, IMAGES).values())) == ((), True)


def test_a_bad_disk_costs_that_part_alone(
    public: Registry, private: Registry, tmp_path: Path
) -> None:
    parts, _, _ = write(tmp_path / "site", public, tmp_path / "b", part_size=PART)
    (parts[1].folder / "index.json").write_text("{}")
    summary, _ = arrive(tmp_path / "far", private, tmp_path / "b")
    there = in_registry(private, IMAGES)
    assert 0 < len(summary.failed) < len(IMAGES)
    assert {one.item.name for one in summary.failed} == {n for n, is_ in there.items() if not is_}
    assert {one.error.message for one in summary.failed} >= {
        f"a.io/big:1: needs part 2 of the bundle, which is not here or damaged; {TOGETHER}"
    }
    write(tmp_path / "site", public, tmp_path / "new", part_size=PART, only=(2,))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["part-002"]
    summary, _ = arrive(
        tmp_path / "far", private, *(parts[n].folder for n in (0, 2, 3)), tmp_path / "new"
    )
    assert (summary.failed, all(in_registry(private, IMAGES).values())) == ((), True)


def test_a_blob_with_other_bytes_is_refused_while_it_is_pushed(
    public: Registry, private: Registry, tmp_path: Path
) -> None:
    write(tmp_path / "site", public, tmp_path / "b")
    digest = next(d for d, data in IMAGES["a.io/mid:1"].blobs.items() if len(data) > 1000)
    path = tmp_path / "b" / "blobs" / "sha256" / digest.removeprefix("sha256:")
    path.write_bytes(bytes(path.stat().st_size))
    summary, _ = arrive(tmp_path / "far", private, tmp_path / "b")
    assert [one.item.name for one in summary.failed] == ["a.io/mid:1"]
    assert "the bundle" in summary.failed[0].error.message
    assert in_registry(private, IMAGES) == {name: name != "a.io/mid:1" for name in IMAGES}


def test_an_image_that_is_gone_leaves_the_bundle_unfinished(
    public: Registry, tmp_path: Path
) -> None:
    gone = {"a.io/gone:1": large("gone", [1000])}
    both = {**IMAGES, **gone}
    parts, summary, _ = write(tmp_path / "site", public, tmp_path / "b", locked(both))
    assert [part.state for part in parts] == ["unfinished"]
    assert [one.item.name for one in summary.failed] == ["a.io/gone:1"]
    assert len(summary.copied) == len(IMAGES)
    with pytest.raises(UserError) as error:
        read.open_bundle([tmp_path / "b"])
    assert error.value.message == f"{tmp_path / 'b'}: not finished: it has no SHA256SUMS"
    push(public, gone)
    parts, summary, _ = write(tmp_path / "site", public, tmp_path / "b", locked(both))
    assert [part.state for part in parts] == ["written"]
    assert [item.name for item in summary.copied] == ["a.io/gone:1"]


# -- deltas ----------------------------------------------------------------------------------------

OLD = {name: IMAGES[name] for name in ("gcr.io/a/app:v1", "a.io/mid:1", "a.io/sub:1")}
NEW = {
    **{name: OLD[name] for name in ("gcr.io/a/app:v1", "a.io/sub:1")},
    "a.io/mid:2": large("mid", [200_000, 3000]),
    "a.io/extra:1": IMAGES["a.io/sub:1"],
    "a.io/big:1": IMAGES["a.io/big:1"],
}


@pytest.fixture
def delta(public: Registry, tmp_path: Path) -> Path:
    push(public, NEW)
    _, _, notes = write(
        tmp_path / "site", public, tmp_path / "delta", locked(NEW), older=locked(OLD)
    )
    assert notes[-1] == "left out, as both locks have them: 2 images"
    return tmp_path / "delta"


def test_a_delta_brings_what_the_far_side_lacks(
    public: Registry, private: Registry, delta: Path, tmp_path: Path
) -> None:
    write(tmp_path / "old-site", public, tmp_path / "old", locked(OLD))
    arrive(tmp_path / "far", private, tmp_path / "old")
    description = json.loads((delta / "bundle.json").read_bytes())
    assert description["since"]["lock"] == sha256_hex(lockfile.dumps(locked(OLD)).encode())
    carried = sum(blob["size"] for blob in description["blobs"])
    assert carried == 3000 + 705_100 + 0
    summary, notes = arrive(tmp_path / "far", private, delta)
    assert (summary.failed, notes) == ((), [])
    assert summary.tally.moved == carried
    assert (summary.tally.mounted, summary.tally.skipped) == (200_100, 200_100)
    assert all(in_registry(private, NEW).values())


def test_what_a_delta_expects_and_is_not_there_is_said_first(
    private: Registry, delta: Path, tmp_path: Path
) -> None:
    summary, notes = arrive(tmp_path / "far", private, delta)
    left_out = (
        "the bundle leaves it out, as the older lock has it too, but the private registry lacks it"
    )
    expected = (
        "{} of its blobs are not in the bundle, which builds on an older lock, and the private"
        " registry lacks them"
    )
    assert notes == [
        f"a.io/extra:1: {expected.format(3)}",
        f"a.io/mid:2: {expected.format(2)}",
        f"a.io/sub:1: {expected.format(3)}",
    ]
    assert {one.item.name: one.error.message for one in summary.failed} == {
        "a.io/extra:1": notes[0],
        "a.io/mid:2": notes[1],
        "a.io/sub:1": notes[2],
        "gcr.io/a/app:v1": f"gcr.io/a/app:v1: {left_out}",
    }
    assert [item.name for item in summary.copied] == ["a.io/big:1"]


def test_a_registry_that_mounts_nothing_gives_what_a_delta_expects(
    public: Registry, private: Registry, delta: Path, tmp_path: Path
) -> None:
    write(tmp_path / "old-site", public, tmp_path / "old", locked(OLD))
    arrive(tmp_path / "far", private, tmp_path / "old")
    summary, notes = arrive(tmp_path / "far", private, delta, mounts=False)
    assert (summary.failed, notes, summary.tally.mounted) == ((), [], 0)
    assert all(in_registry(private, NEW).values())


def test_an_old_image_that_is_gone_costs_only_room(public: Registry, tmp_path: Path) -> None:
    gone = {"a.io/lost:1": large("lost", [1000])}
    _, summary, notes = write(
        tmp_path / "site", public, tmp_path / "d", locked(OLD), older=locked({**OLD, **gone})
    )
    assert summary.failed == ()
    assert notes[0].startswith(
        "a.io/lost:1: its blobs are not left out, as it can't be read any more: "
    )


# -- what belongs to an image ----------------------------------------------------------------------


def test_signatures_travel_with_their_images(
    public: Registry, private: Registry, tmp_path: Path
) -> None:
    subject = IMAGES["a.io/mid:1"].digest
    tag = f"{subject.replace(':', '-')}.sig"
    signature, sbom = large("signature", [70]), large("sbom", [80])
    push(public, {f"a.io/mid:{tag}": signature, "a.io/mid:sbom": sbom})
    (image,) = locked({"a.io/mid:1": IMAGES["a.io/mid:1"]})
    attached = (
        Attachment(subject, "referrer", "application/sbom", sbom.digest),
        Attachment(subject, "tag", tag, signature.digest),
    )
    lock = Lock([replace(image, attached=attached)])
    write(tmp_path / "site", public, tmp_path / "b", lock)
    description = json.loads((tmp_path / "b" / "bundle.json").read_bytes())
    assert [image["name"] for image in description["images"]] == [
        "a.io/mid:1",
        f"a.io/mid:{tag}",
        f"a.io/mid@{sbom.digest}",
    ]
    summary, _ = arrive(tmp_path / "far", private, tmp_path / "b")
    assert (len(summary.copied), summary.failed) == (3, ())
    there = Pushed(private.host)
    assert there.digest("kf/a.io/mid", tag) == signature.digest
    assert there.digest("kf/a.io/mid", sbom.digest) == sbom.digest
    with_old = locked({"a.io/mid:1": IMAGES["a.io/mid:1"]})
    write(tmp_path / "site", public, tmp_path / "d", lock, older=with_old)
    description = json.loads((tmp_path / "d" / "bundle.json").read_bytes())
    assert len(description["images"]) == 2
    assert sum(blob["size"] for blob in description["blobs"]) == 100 + 70 + 100 + 80


# -- platforms -------------------------------------------------------------------------------------

AMD = ("linux/amd64",)
TWO = make_standin("a.io/two:1", kind=0)


def index() -> Manifest:
    media_type, body = TWO.manifests[TWO.digest]
    return Manifest.parse(body, media_type)


def reduced_lock() -> Lock:
    at = ImageRef("a.io", "two", "", TWO.digest)
    digests = {"linux/amd64": select_platforms(index(), AMD).digest}
    return Lock([LockedImage(written("a.io/two:1"), at, TWO.platforms, TWO.size, digests)])


def test_a_bundle_has_the_platforms_of_its_environment(
    public: Registry, private: Registry, tmp_path: Path
) -> None:
    push(public, {"a.io/two:1": TWO})
    write(tmp_path / "site", public, tmp_path / "b", reduced_lock(), platforms=AMD)
    description = json.loads((tmp_path / "b" / "bundle.json").read_bytes())
    assert [image["digest"] for image in description["images"]] == [
        select_platforms(index(), AMD).digest
    ]
    assert sum(blob["size"] for blob in description["blobs"]) < TWO.size
    summary, _ = arrive(tmp_path / "far", private, tmp_path / "b", platforms=AMD)
    assert summary.failed == ()
    there = Pushed(private.host).digest("kf/a.io/two", "1")
    assert there == select_platforms(index(), AMD).digest
    summary, _ = arrive(tmp_path / "far", private, tmp_path / "b")
    assert [one.error.message for one in summary.failed] == [
        f"a.io/two:1: the bundle has no {TWO.digest}"
    ]


def test_a_bundle_of_all_platforms_is_reduced_where_it_arrives(
    public: Registry, private: Registry, tmp_path: Path
) -> None:
    push(public, {"a.io/two:1": TWO})
    write(tmp_path / "site", public, tmp_path / "b", reduced_lock())
    summary, _ = arrive(tmp_path / "far", private, tmp_path / "b", platforms=AMD)
    assert summary.failed == ()
    there = Pushed(private.host).digest("kf/a.io/two", "1")
    assert there == select_platforms(index(), AMD).digest


# -- other tools -----------------------------------------------------------------------------------


@pytest.fixture
def layout(public: Registry, tmp_path: Path) -> Path:
    write(tmp_path / "site", public, tmp_path / "b")
    return tmp_path / "b"


def said(*argv: str | Path) -> str:
    done = subprocess.run(
        [str(word) for word in argv], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


OCI = [name for name, image in IMAGES.items() if ".oci." in image.media_type]


@pytest.mark.parametrize("name", OCI)
def test_skopeo_takes_an_image_by_its_name(layout: Path, private: Registry, name: str) -> None:
    need_programs("skopeo")
    item = next(item for item in items(IMAGES) if item.name == name)
    target = f"docker://{private.host}/skopeo:x"
    options = ("--all", "--preserve-digests", "--dest-tls-verify=false", "-q")
    said("skopeo", "copy", *options, f"oci:{layout}:{name}", target)
    assert Pushed(private.host).digest("skopeo", "x") == item.digest


@pytest.mark.parametrize("name", IMAGES)
def test_oras_takes_an_image_by_its_name(layout: Path, private: Registry, name: str) -> None:
    need_programs("oras")
    item = next(item for item in items(IMAGES) if item.name == name)
    target = f"{private.host}/oras:x"
    said("oras", "cp", "--from-oci-layout-path", layout, "--to-plain-http", name, target)
    assert Pushed(private.host).digest("oras", "x") == item.digest


@pytest.mark.parametrize("name", IMAGES)
def test_regctl_takes_an_image_by_its_digest(layout: Path, private: Registry, name: str) -> None:
    need_programs("regctl")
    item = next(item for item in items(IMAGES) if item.name == name)
    options = ("--host", f"reg={private.host},tls=disabled")
    target = f"{private.host}/regctl:x"
    said("regctl", *options, "image", "copy", f"ocidir://{layout}@{item.digest}", target)
    assert Pushed(private.host).digest("regctl", "x") == item.digest


def test_crane_takes_the_whole(layout: Path, private: Registry) -> None:
    need_programs("crane")
    said("crane", "push", "--index", layout, f"{private.host}/crane:x")
    for item in items(IMAGES):
        assert Pushed(private.host).digest("crane", item.digest) == item.digest


def test_parts_laid_over_each_other_are_one_layout(
    public: Registry, private: Registry, tmp_path: Path
) -> None:
    need_programs("oras")
    whole = {name: image for name, image in IMAGES.items() if name != "a.io/big:1"}
    parts, _, _ = write(tmp_path / "site", public, tmp_path / "b", locked(whole), part_size=PART)
    assert len(parts) > 1
    for part in parts:
        shutil.copytree(part.folder, tmp_path / "all", dirs_exist_ok=True)
    for item in items(whole):
        target = f"{private.host}/all:x"
        said(
            "oras",
            "cp",
            "--from-oci-layout-path",
            tmp_path / "all",
            "--to-plain-http",
            item.name,
            target,
        )
        assert Pushed(private.host).digest("all", "x") == item.digest
