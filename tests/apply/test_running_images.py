"""Images that pods run, against a set's."""

from __future__ import annotations

from typing import Any

import pytest

from kfdeploy.apply import running_images
from kfdeploy.apply.running_images import ExpectedImages, PodImageUse
from kfdeploy.images.lockfile import Lock, LockedImage
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.oci.reference import ImageRef
from kfdeploy.releaseset.summary import ImageSummary
from tests.support.refs import written

INDEX, AMD, REDUCED, OTHER, PINNED = (f"sha256:{letter * 64}" for letter in "12345")
APP, TAGGED, BY_DIGEST = "quay.io/org/app:1", "busybox", f"gcr.io/p/q@{PINNED}"
MIRROR = "r.test:5000/kf"
KNOWN = ExpectedImages(
    images={
        written(ref): ImageSummary(ref=written(ref), mirror=ImageRef.parse(f"{MIRROR}/{path}"))
        for ref, path in (
            (APP, f"quay.io/org/app:1@{REDUCED}"),
            (TAGGED, "docker.io/library/busybox:latest"),
            (BY_DIGEST, f"gcr.io/p/q@{PINNED}"),
        )
    },
    lock=Lock(
        (
            LockedImage(
                written(APP),
                ImageRef.parse(f"quay.io/org/app@{INDEX}"),
                platforms={"linux/amd64": AMD},
                reduced={"linux/amd64": REDUCED},
            ),
        )
    ),
    registry=MIRROR,
    accepted=(),
)
SAME = "by its upstream name, but with the lock's content"
JUDGED = [
    (f"{MIRROR}/quay.io/org/app:1@{REDUCED}", "", "locked", APP, ""),
    (f"{MIRROR}/quay.io/org/app:1@{REDUCED}", AMD, "locked", APP, ""),
    (f"{MIRROR}/quay.io/org/app:1", INDEX, "locked", APP, ""),
    (
        f"{MIRROR}/quay.io/org/app:1",
        OTHER,
        "stale",
        APP,
        f"its content is not the lock's: {OTHER}",
    ),
    (
        f"{MIRROR}/quay.io/org/app:2",
        "",
        "stale",
        APP,
        f"the set has {MIRROR}/quay.io/org/app:1@{REDUCED}",
    ),
    (
        f"{MIRROR}/quay.io/org/app:1@{OTHER}",
        "",
        "stale",
        APP,
        f"the set has {MIRROR}/quay.io/org/app:1@{REDUCED}",
    ),
    (f"{MIRROR}/docker.io/library/busybox", OTHER, "locked", TAGGED, ""),
    (f"{MIRROR}/gcr.io/p/q@{PINNED}", PINNED, "locked", BY_DIGEST, ""),
    (
        f"{MIRROR}/own/notebook:1",
        "",
        "unlocked",
        "",
        "in the private registry, and not an image of the set",
    ),
    (
        "r.test:5000/kfx/a:1",
        "",
        "foreign",
        "",
        "not from the private registry, and not an image of the set",
    ),
    (
        "docker.io/library/nginx",
        "",
        "foreign",
        "",
        "not from the private registry, and not an image of the set",
    ),
    (
        APP,
        "",
        "foreign",
        APP,
        f"by its upstream name; the set has {MIRROR}/quay.io/org/app:1@{REDUCED}",
    ),
    (
        "docker.io/busybox",
        OTHER,
        "foreign",
        TAGGED,
        f"by its upstream name; the set has {MIRROR}/docker.io/library/busybox:latest",
    ),
    (
        APP,
        INDEX,
        "foreign",
        APP,
        f"{SAME}; registries.uncovered accepts it if the nodes have a registry mirror",
    ),
]


@pytest.mark.parametrize(("image", "digest", "state", "ref", "why"), JUDGED)
def test_an_image_is_judged_by_its_name_and_its_content(
    image: str, digest: str, state: str, ref: str, why: str
) -> None:
    source = written(ref) if ref else None
    assert KNOWN.classify_image(image, [digest] if digest else []) == (state, source, why)


def test_what_is_accepted_may_come_from_elsewhere() -> None:
    known = ExpectedImages(KNOWN.images, KNOWN.lock, KNOWN.registry, accepted=[APP])
    assert known.classify_image(APP, []) == ("locked", written(APP), "")


def test_what_is_no_reference_is_foreign() -> None:
    state, _, why = KNOWN.classify_image("", [])
    assert (state, why) == ("foreign", "'' is no image reference: not host/path:tag@digest")


def test_every_container_and_volume_of_a_pod_counts() -> None:
    pod: dict[str, Any] = {
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {
            "initContainers": [{"name": "i", "image": "a/init"}],
            "containers": [{"name": "c", "image": "a/main:1"}],
            "ephemeralContainers": [{"name": "e", "image": "a/debug"}],
            "volumes": [
                {"name": "v", "image": {"reference": "a/data:1"}},
                {"name": "w", "emptyDir": {}},
            ],
        },
        "status": {
            "containerStatuses": [{"name": "c", "imageID": f"docker-pullable://a/main@{INDEX}"}],
            # The sum of a configuration, of which no lock knows.
            "initContainerStatuses": [{"name": "i", "imageID": OTHER}],
        },
    }
    owner = ObjectKey("apps/v1", "Deployment", "n", "d")
    assert [
        (one.image, one.digest, one.part) for one in running_images.list_pod_images(pod, owner)
    ] == [
        ("a/init", "", "initContainers[name=i]"),
        ("a/main:1", INDEX, "containers[name=c]"),
        ("a/debug", "", "ephemeralContainers[name=e]"),
        ("a/data:1", "", "volumes[name=v]"),
    ]


def test_one_entry_a_reference_with_all_who_run_it() -> None:
    good = f"{MIRROR}/quay.io/org/app:1"
    owners = [ObjectKey("apps/v1", "Deployment", "n", name) for name in ("b", "a")]
    pods = [ObjectKey("v1", "Pod", "n", name) for name in ("p", "q", "r")]
    found = running_images.classify_running_images(
        [
            PodImageUse(good, AMD, "containers[name=x]", owners[0], pods[0]),
            PodImageUse(good, "", "containers[name=x]", owners[1], pods[1]),
            PodImageUse(good, OTHER, "containers[name=x]", owners[1], pods[2]),
            PodImageUse("evil/x", "", "containers[name=y]", owners[0], pods[0]),
        ],
        KNOWN,
    )
    assert [(one.state, one.image, one.pods) for one in found] == [
        ("foreign", "evil/x", 1),
        ("stale", good, 1),
        ("locked", good, 2),
    ]
    assert [str(owner) for owner in found[2].owners] == ["Deployment n/a", "Deployment n/b"]
    assert running_images.find_unused_images(found, KNOWN) == [
        written(TAGGED),
        written(BY_DIGEST),
    ]
