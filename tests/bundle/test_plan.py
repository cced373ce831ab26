"""bundle.json, and what goes into which part."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from kfdeploy.bundle import manifest as model
from kfdeploy.bundle.manifest import Bundle, BundleFile
from kfdeploy.bundle.plan import DeliveredContents, parse_size, plan_bundle
from kfdeploy.errors import UserError
from kfdeploy.images.naming import MirrorRef
from kfdeploy.json_object import InvalidJson
from kfdeploy.mirror.plan import MirrorItem
from kfdeploy.oci.manifest import OCI_MANIFEST, ImageTree, Manifest
from kfdeploy.oci.reference import ImageRef
from tests.support.refs import written


def made(ref: str, layers: Sequence[tuple[str, int]], **more: Any) -> tuple[MirrorItem, ImageTree]:
    """An image with these layers: the first digit of the digest, and bytes."""
    content = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "layers": [{"digest": f"sha256:{d * 64}", "size": size} for d, size in layers],
        "annotations": {"for": ref},
    }
    root = Manifest.parse(json.dumps(content).encode())
    parsed = ImageRef.parse(ref)
    target = MirrorRef(ImageRef("r.test", parsed.path), parsed.tag, root.digest)
    source = ImageRef(parsed.host, parsed.path, "", root.digest)
    return MirrorItem(
        (written(ref),), source, target, root.digest, None, "copy", **more
    ), ImageTree(root, (root,))


def planned(*items: tuple[MirrorItem, ImageTree], **more: Any) -> Bundle:
    return plan_bundle(items, lock="0" * 64, kfdeploy="1", **more)


def where(bundle: Bundle) -> dict[str, tuple[tuple[int, int], ...]]:
    return {blob.digest[7]: blob.pieces for blob in bundle.blobs}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4.7G", 4_700_000_000),
        ("700M", 700_000_000),
        ("25GB", 25_000_000_000),
        ("4GiB", 4 << 30),
        ("1 tb", 10**12),
        ("4096", 4096),
    ],
)
def test_sizes_are_decimal_as_disks_are_sold(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "4.7X", "iB", "4iB", "nan"])
def test_what_is_no_size_is_said(text: str) -> None:
    with pytest.raises(UserError) as error:
        parse_size(text)
    assert (error.value.message, error.value.exit_code) == (f"--part-size {text}: not a size", 2)


def test_without_a_size_all_is_one_part() -> None:
    bundle = planned(made("a.io/x:1", [("a", 10), ("b", 20)]))
    assert (bundle.parts, bundle.part_folder(1)) == (1, "")
    assert where(bundle) == {"a": ((1, 10),), "b": ((1, 20),)}


def test_what_is_written_is_read_again() -> None:
    items = [
        made("a.io/x:1", [("a", 10), ("b", 300_000)]),
        made("a.io/y:1", [("c", 10)], belongs_to="sha256-1.sig", push_tag="sha256-1.sig"),
    ]
    old = DeliveredContents.from_items("1" * 64, [made("a.io/x:0", [("a", 10)])])
    files = [BundleFile("programs/helm", 7, "2" * 64, executable=True)]
    bundle = planned(*items, part_size=100_000, older=old, files=files, wheels_for=("cp311",))
    assert model.loads(bundle.dumps()) == bundle
    assert model.loads(bundle.dumps()).dumps() == bundle.dumps()


def test_an_image_goes_whole_into_the_first_part_with_room() -> None:
    layers = [
        made("a.io/a:1", [("a", 50_000)]),
        made("a.io/b:1", [("b", 40_000), ("c", 20_000)]),
        made("a.io/c:1", [("a", 50_000), ("d", 20_000)]),
    ]
    bundle = planned(*layers, part_size=130_000)
    assert where(bundle) == {
        "a": ((1, 50_000),),
        "b": ((2, 40_000),),
        "c": ((2, 20_000),),
        "d": ((1, 20_000),),
    }


def test_only_a_blob_that_is_larger_than_a_part_is_split() -> None:
    items = [made("a.io/a:1", [("a", 250_000), ("b", 90_000), ("c", 10)])]
    bundle = planned(*items, part_size=130_000)
    pieces = where(bundle)
    assert len(pieces["b"]) == len(pieces["c"]) == 1
    assert sum(size for _, size in pieces["a"]) == 250_000
    assert [part for part, _ in pieces["a"]] == [1, 2, 3]
    paths = [path for _, path, _ in bundle.by_digest[f"sha256:{'a' * 64}"].locate_pieces()]
    assert paths == [f"pieces/sha256/{'a' * 64}.00{n}" for n in (1, 2, 3)]
    for part in range(1, bundle.parts + 1):
        assert bundle.count_part_bytes(part) < 130_000


def test_parts_too_small_for_the_lists_are_refused() -> None:
    with pytest.raises(UserError) as error:
        planned(made("a.io/a:1", [("a", 10)]), part_size=8000)
    assert error.value.message.startswith(
        "--part-size: parts of 7.8 KiB are too small: manifests and lists, which every part needs,"
    )


def test_a_file_that_fits_into_no_part_is_named() -> None:
    files = [BundleFile("programs/helm", 100_000, "0" * 64)]
    with pytest.raises(UserError) as error:
        planned(made("a.io/a:1", [("a", 10)]), part_size=90_000, files=files)
    assert error.value.message == (
        "--part-size: programs/helm does not fit into a part of 87.9 KiB"
    )


def test_a_delta_leaves_out_what_the_other_side_has() -> None:
    old = [made("a.io/x:1", [("a", 1), ("b", 2)]), made("a.io/y:1", [("c", 3)])]
    new = [old[0], made("a.io/y:2", [("a", 1), ("c", 3), ("d", 4)])]
    bundle = planned(*new, older=DeliveredContents.from_items("1" * 64, old))
    assert [image.name for image in bundle.images] == ["a.io/y:2"]
    assert len(bundle.manifests) == 1
    assert where(bundle) == {"d": ((1, 4),)}
    assert bundle.since is not None
    assert bundle.since.images == {"a.io/x:1": old[0][0].digest}
    assert {d[7]: places for d, places in bundle.expected.items()} == {
        "a": ("a.io/x",),
        "c": ("a.io/y",),
    }


def test_a_name_that_other_tools_refuse_gives_way_to_the_digest() -> None:
    bundle = planned(made("a.io/x__y:1", []), made("redis", []))
    names = [entry["annotations"] for entry in json.loads(bundle.build_index())["manifests"]]
    assert [name[model.FULL_NAME] for name in names] == [
        "a.io/x__y:1",
        "docker.io/library/redis:latest",
    ]
    assert names[0][model.REF_NAME].startswith("sha256:")
    assert names[1][model.REF_NAME] == "docker.io/library/redis:latest"


def test_ids_that_mean_the_same_share_a_name() -> None:
    item, tree = made("redis:6", [])
    both = replace(item, ids=(written("docker.io/library/redis:6"), written("redis:6")))
    (image,) = planned((both, tree)).images
    assert image.refs == ("docker.io/library/redis:6", "redis:6")


GOOD = planned(made("a.io/x:1", [("a", 1)]), files=[BundleFile("programs/helm", 1, "0" * 64)])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 2, "format 2: of a later kfdeploy"),
        ("lock", "x", "lock: 'x' is not allowed here"),
        ("parts", 0, "parts: 0"),
        ("blobs", {}, "blobs: not a list"),
        ("blobs", [{"digest": "sha256:../x"}], "blobs[0].size: missing"),
        (
            "blobs",
            [{"digest": "sha256:../../x", "size": 1, "part": 1}],
            "blobs[0].digest: 'sha256:../../x' is not allowed here",
        ),
        (
            "blobs",
            [{"digest": f"sha256:{'a' * 64}", "size": 1, "part": 2}],
            "blobs[0].part: 2 is not a part: there are 1",
        ),
        (
            "blobs",
            [{"digest": f"sha256:{'a' * 64}", "size": 3, "pieces": [{"part": 1, "size": 1}]}],
            "blobs[0].pieces: their sizes do not add up to 3 bytes",
        ),
        (
            "files",
            [{"path": "workspace/../../x", "size": 1, "sha256": "0" * 64, "part": 1}],
            "files[0].path: 'workspace/../../x' is not a path below the bundle",
        ),
        (
            "files",
            [{"path": "/etc/x", "size": 1, "sha256": "0" * 64, "part": 1}],
            "files[0].path: '/etc/x' is not a path below the bundle",
        ),
        (
            "files",
            [{"path": "blobs/x", "size": 1, "sha256": "0" * 64, "part": 1}],
            "files: blobs/x: not below workspace, wheels, programs",
        ),
        (
            "manifests",
            [],
            f"images: a.io/x:1: manifests has no {GOOD.images[0].digest}",
        ),
    ],
)
def test_a_damaged_description_is_refused(key: str, value: object, message: str) -> None:
    content = {**json.loads(GOOD.dumps()), key: value}
    with pytest.raises(InvalidJson) as error:
        model.loads(json.dumps(content).encode())
    assert str(error.value) == message
