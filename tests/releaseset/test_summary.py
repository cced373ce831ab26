"""A set's summary: written as ever, read strictly, and of every earlier kfdeploy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.errors import UserError
from kfdeploy.images.inventory import UnreviewedGroup
from kfdeploy.json_object import InvalidJson
from kfdeploy.oci.reference import ImageRef
from kfdeploy.releaseset.folder import open_set
from kfdeploy.releaseset.summary import (
    SUMMARY_FILE,
    ImageSummary,
    ReleaseSummary,
    SetSummary,
    dump_summary,
    parse_summary,
)
from tests.support.refs import written

DIGEST = f"sha256:{'1' * 64}"
REDIS = ImageSummary(
    ref=written("redis:6"),
    mirror=ImageRef.parse(f"r.test/kf/docker.io/library/redis:6@{DIGEST}"),
    source=ImageRef.parse(f"redis@{DIGEST}"),
    need="required",
    redirects=("admission", "env REDIS"),
    by_tag=ImageRef.parse("r.test/kf/docker.io/library/redis:6"),
    is_loose=True,
    is_copied=True,
)
EXTRA = ImageSummary(
    ref=written("quay.io/org/extra:1"),
    mirror=ImageRef.parse("r.test/kf/quay.io/org/extra:1"),
    need="optional",
    redirects=("none",),
    is_unpinned=True,
    lacks_redirect=True,
    why_not_mirrored="excluded: not used here",
)
WHOLE = SetSummary(
    environment="production",
    kfdeploy="0.1.0",
    upstream="26.03",
    registry="r.test/kf",
    kube_version="1.34.0",
    platforms=("linux/amd64",),
    images={image.ref: image for image in (EXTRA, REDIS)},
    releases=(
        ReleaseSummary(name="first", component="first", wait=True, object_count=2, crd_count=1),
        ReleaseSummary(
            name="first-after",
            component="first",
            needs=("first",),
            trusts=("validatingwebhookconfiguration/hook",),
            object_count=3,
            stored_bytes=900,
        ),
    ),
    waves=(("first",), ("first-after",)),
    unreviewed=(UnreviewedGroup("katib", "1.2.3", ("quay.io/org/katib:1",)),),
)
JSON = {
    "environment": "production",
    "images": {
        "quay.io/org/extra:1": {
            "mirror": "r.test/kf/quay.io/org/extra:1",
            "need": "optional",
            "redirects": ["none"],
            "source": "",
        },
        "redis:6": {
            "byTag": "r.test/kf/docker.io/library/redis:6",
            "copied": True,
            "loose": True,
            "mirror": f"r.test/kf/docker.io/library/redis:6@{DIGEST}",
            "need": "required",
            "redirects": ["admission", "env REDIS"],
            "source": f"docker.io/library/redis@{DIGEST}",
        },
    },
    "kfdeploy": "0.1.0",
    "kubeVersion": "1.34.0",
    "noRedirect": ["quay.io/org/extra:1"],
    "notMirrored": {"quay.io/org/extra:1": "excluded: not used here"},
    "notRead": [{"images": ["quay.io/org/katib:1"], "program": "katib", "version": "1.2.3"}],
    "platforms": ["linux/amd64"],
    "registry": "r.test/kf",
    "releases": [
        {
            "component": "first",
            "crds": 1,
            "name": "first",
            "needs": [],
            "objects": 2,
            "storedBytes": 0,
            "trusts": [],
            "wait": True,
        },
        {
            "component": "first",
            "crds": 0,
            "name": "first-after",
            "needs": ["first"],
            "objects": 3,
            "storedBytes": 900,
            "trusts": ["validatingwebhookconfiguration/hook"],
            "wait": False,
        },
    ],
    "unpinned": ["quay.io/org/extra:1"],
    "upstream": "26.03",
    "waves": [["first"], ["first-after"]],
}


def test_what_is_written_is_read_and_sorted_by_key() -> None:
    text = dump_summary(WHOLE).decode()
    assert text == json.dumps(JSON, indent=2) + "\n"
    assert parse_summary(text) == WHOLE


def test_a_set_of_the_first_kfdeploy_is_read() -> None:
    first = {
        "environment": "default",
        "images": {"redis:6": {"mirror": "r.test/redis:6", "source": ""}},
        "kfdeploy": "0.0.1",
        "kubeVersion": "1.30.0",
        "noRedirect": [],
        "notMirrored": {},
        "registry": "r.test",
        "releases": [{"crds": 0, "name": "one", "objects": 1, "storedBytes": 10}],
        "unpinned": [],
        "upstream": "1.10.2",
    }
    summary = parse_summary(json.dumps(first))
    assert summary.releases == (
        ReleaseSummary(name="one", component="one", object_count=1, stored_bytes=10),
    )
    assert summary.images[written("redis:6")] == ImageSummary(
        ref=written("redis:6"), mirror=ImageRef("r.test", "redis", "6")
    )
    assert (summary.waves, summary.platforms, summary.unreviewed) == ((), (), ())


def test_keys_of_a_later_kfdeploy_are_ignored() -> None:
    later = {**JSON, "format": 1, "more": [1], "releases": [{**JSON["releases"][0], "more": {}}]}  # type: ignore[index]
    del later["waves"]
    assert parse_summary(json.dumps(later)).releases == WHOLE.releases[:1]


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(format=2), "format: 2 is not known here, only 1: a later kfdeploy's"),
        (lambda s: s.update(format="1"), "format: not a whole number from 0 on"),
        (lambda s: s.pop("environment"), "environment: missing"),
        (lambda s: s.update(registry=["r.test"]), "registry: not a text"),
        (lambda s: s.update(upstream="\ud800"), "upstream: not a text"),
        (lambda s: s.update(platforms="linux/amd64"), "platforms: not a list of texts"),
        (lambda s: s.update(images=[]), "images: not an object"),
        (lambda s: s["images"].update({"redis:6": 1}), 'images["redis:6"]: not an object'),
        (lambda s: s["images"]["redis:6"].pop("mirror"), 'images["redis:6"].mirror: missing'),
        (
            lambda s: s["images"]["redis:6"].update(mirror="x X"),
            (
                'images["redis:6"].mirror:'
                " 'x X' is no image reference: a repository name is lower case"
            ),
        ),
        (
            lambda s: s["images"]["redis:6"].update(source=1),
            'images["redis:6"].source: not a text',
        ),
        (
            lambda s: s["images"]["redis:6"].update(redirects=["magic"]),
            "images[\"redis:6\"].redirects: 'magic' is no redirect",
        ),
        (
            lambda s: s["images"].update({"A": {"mirror": "r.test/a"}}),
            "images.A: 'A' is no image reference: a repository name is lower case",
        ),
        (lambda s: s.update(noRedirect=["x"]), "noRedirect: x is not among images"),
        (lambda s: s.update(notMirrored={"x": "why"}), "notMirrored: x is not among images"),
        (lambda s: s.update(notMirrored={"redis:6": 1}), 'notMirrored["redis:6"]: not a text'),
        (lambda s: s.update(notRead=[{"images": []}]), "notRead[0].images: empty"),
        (lambda s: s.update(releases={}), "releases: not a list"),
        (
            lambda s: s["releases"][0].update(name="../../etc"),
            "releases[0].name: '../../etc' is not allowed here",
        ),
        (
            lambda s: s["releases"][1].update(name="first", needs=[]),
            "releases[1].name: first is there twice",
        ),
        (
            lambda s: s["releases"][0].update(needs=["first-after"]),
            "releases[0].needs: first-after is not among the releases before it",
        ),
        (lambda s: s["releases"][0].update(wait=1), "releases[0].wait: neither true nor false"),
        (
            lambda s: s["releases"][0].update(storedBytes=-1),
            "releases[0].storedBytes: not a whole number from 0 on",
        ),
        (lambda s: s.update(waves=["first"]), "waves: not a list of lists of texts"),
        (lambda s: s.update(waves=[["x"]]), "waves: x is not among releases"),
    ],
)
def test_a_mistake_is_named_with_its_key(change: Change, message: str) -> None:
    content = json.loads(json.dumps(JSON))
    change(content)
    with pytest.raises(InvalidJson) as error:
        parse_summary(json.dumps(content))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "line 1: not JSON: Expecting value"),
        ("[" * 100_000, "nested too deeply"),
        ("null", "the file: not an object"),
    ],
)
def test_what_is_no_summary_is_an_error_that_names_the_file(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / SUMMARY_FILE).write_text(text)
    with pytest.raises(UserError) as error:
        open_set(tmp_path)
    assert error.value.message == f"{tmp_path.name}/summary.json: {message}"
    assert error.value.hint == "run `kfdeploy render`, or carry the set here again"
