"""What `scan` lists, held against what people read in the manifests."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from kfdeploy.codec import to_json
from kfdeploy.images.inventory import NEEDS
from kfdeploy.session import Session
from tests.conftest import DATA, RELEASES, Runner, Site
from tests.support.workspaces import deployment, workspace

RealSite = Callable[[str], Site]
HASH = re.compile(r"-[2456789bcdfghkmt]{10}$")


@cache
def _scanned(root: Path) -> Any:
    return to_json(Session.open(root, "", quiet=True).build_inventory())


def scanned(site: Site) -> Any:
    return _scanned(site.root)


def by_ref(site: Site) -> dict[str, Any]:
    return {image["ref"]: image for image in scanned(site)["images"]}


# -- the small upstream ----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def expected() -> Any:
    return YAML(typ="safe").load(DATA / "expected-images.yaml")


def place(entry: dict[str, Any] | None) -> tuple[str, int] | None:
    return None if entry is None else (entry["file"], entry["line"])


def test_each_mention_of_the_small_upstream_is_listed_with_its_place(
    small_site: Site, expected: Any
) -> None:
    wanted = [
        (
            *(entry["ref"], entry["component"], entry["field"], entry["how"]),
            tuple(sorted(entry["object"].items())),
            place(entry),
            place(entry.get("overridden_by")),
        )
        for entry in expected["images"]
        if entry.get("in_example", True)
    ]
    found = []
    for image in scanned(small_site)["images"]:
        for entry in image["found"]:
            if entry["how"] == "catalogue" and "file" in entry:
                continue  # derived from a site, which is listed itself
            named = entry["object"] | {"name": HASH.sub("", entry["object"]["name"])}
            (overridden,) = entry.get("overridden_by", [None])
            found.append(
                (
                    *(image["ref"], entry["component"], entry["field"], entry["how"]),
                    tuple(sorted(named.items())),
                    place(entry),
                    place(overridden),
                )
            )
    assert sorted(found, key=str) == sorted(wanted, key=str)


def test_what_is_no_image_of_the_small_upstream_is_not_listed(
    small_site: Site, expected: Any
) -> None:
    never = {string for group in expected["never"] for string in group["strings"]}
    assert never & set(by_ref(small_site)) == set()


def test_the_same_image_in_two_places_is_needed_as_the_stronger_says(small_site: Site) -> None:
    several = [image for image in by_ref(small_site).values() if len(image["found"]) > 1]
    assert several
    for image in several:
        needs = [entry["need"] for entry in image["found"]]
        assert image["need"] == min(needs, key=NEEDS.index)


# -- 1.10.2 ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def truth(upstreams: Path) -> list[Any]:
    path = upstreams.parent / "truth" / "images-1.10.2.yaml"
    if not path.is_file():
        pytest.skip("the truth about 1.10.2 is not beside the real releases")
    entries: list[Any] = YAML(typ="safe").load(path)
    return [entry for entry in entries if entry["in_example"]]


def with_site(truth: list[Any]) -> list[Any]:
    return [entry for entry in truth if entry["kind"] not in ("compiled-in", "sdk-default")]


MADE_BY_KSERVE = {"tensorflow/serving:2.6.2-gpu", "pytorch/torchserve-kfs:0.9.0-gpu"}
"""KServe 0.15.0 appends -gpu to these runtimes' tags, as to Hugging Face's, which the truth has
(kserve/kserve@v0.15.0:pkg/controller/v1beta1/inferenceservice/utils/utils.go:310)."""

OF_KATIBS_SDK = {"docker.io/kubeflow/storage-initializer", "docker.io/kubeflow/trainer-huggingface"}
"""Katib's SDK pins an older SDK of the training operator than the truth has for its trials
(kubeflow/katib@v0.18.0:sdk/python/v1beta1/setup.py:28)."""


@pytest.mark.slow
def test_every_image_of_1_10_2_is_found_and_nothing_else(
    real_site: RealSite, truth: list[Any]
) -> None:
    found = by_ref(real_site("1.10.2"))
    sited = {
        ref for ref, i in found.items() if any(f["how"] != "catalogue" for f in i["found"])
    }  # fmt: skip
    assert sited == {entry["image"] for entry in with_site(truth)}
    live = {entry["image"] for entry in truth if not entry.get("fallback")}
    assert set(found) == live | MADE_BY_KSERVE | OF_KATIBS_SDK


@pytest.mark.slow
def test_what_1_10_2_needs_is_redirected_by_something_better_than_admission(
    real_site: RealSite,
) -> None:
    weak = [
        (image["ref"], place["redirect"])
        for image in scanned(real_site("1.10.2"))["images"]
        for place in image["found"]
        if place["need"] != "user-choice" and place["redirect"] in ("none", "admission")
    ]
    assert weak == []


@pytest.mark.slow
def test_images_of_1_10_2_are_needed_as_the_truth_says(
    real_site: RealSite, truth: list[Any]
) -> None:
    words = {"yes": "required", "optional": "optional", "user-choice": "user-choice"}
    wanted: dict[str, str] = {}
    for entry in truth:
        both = (words[entry["required"]], wanted.get(entry["image"], NEEDS[-1]))
        wanted[entry["image"]] = min(both, key=NEEDS.index)
    found = by_ref(real_site("1.10.2"))
    assert {ref: image["need"] for ref, image in found.items()} == {
        ref: wanted.get(ref, "user-choice" if ref in OF_KATIBS_SDK else "optional") for ref in found
    }


ISTIO = "common/istio/istio-install/base/install.yaml"
SYNC = (
    "applications/pipeline/upstream/base/installs/multi-user/pipelines-profile-controller/sync.py"
)
"""The profile controller's script; the tree at hand may have a stand-in, with other lines."""
WORKFLOW_CONTROLLER = "workflow-controller/workflow-controller-deployment.yaml"
ARGO = "applications/pipeline/upstream/third-party/argo"
OTHER_PLACES: dict[str, tuple[set[tuple[str, int]], set[tuple[str, int]]]] = {
    # The truth names the tag's line, scan the image's; Helm's own record is listed as well.
    "gcr.io/istio-release/proxyv2:1.26.1": ({(ISTIO, 2855)}, {(ISTIO, 2815), (ISTIO, 2992)}),
    # Of a name that is joined, the truth names the version's line too.
    "kserve/art-explainer:latest": (
        {("applications/kserve/kserve/kserve_kubeflow.yaml", 32661)},
        set(),
    ),
    # A field stands at its base; the patch that has the last word is in `overridden_by`.
    "quay.io/argoproj/workflow-controller:v3.5.14": (
        {(f"{ARGO}/base/workflow-controller-deployment-patch.yaml", 10)},
        {(f"{ARGO}/upstream/manifests/base/{WORKFLOW_CONTROLLER}", 20)},
    ),
}


@pytest.mark.slow
def test_images_of_1_10_2_stand_where_the_truth_says(real_site: RealSite, truth: list[Any]) -> None:
    wanted: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for entry in with_site(truth):
        for file, line in re.findall(r"([\w./-]+\.(?:ya?ml|py|env|json)):(\d+)", entry["where"]):
            wanted[entry["image"]].add((file, 0 if file == SYNC else int(line)))
    different = {}
    for ref, image in by_ref(real_site("1.10.2")).items():
        places = {
            (f["file"], 0 if f["file"] == SYNC else f["line"])
            for f in image["found"]
            if "file" in f and f["how"] != "catalogue"
        }
        if places != wanted[ref]:
            different[ref] = (wanted[ref] - places, places - wanted[ref])
    assert different == OTHER_PLACES


@pytest.mark.slow
def test_what_overrode_a_field_is_named(real_site: RealSite) -> None:
    (entry,) = by_ref(real_site("1.10.2"))["quay.io/argoproj/workflow-controller:v3.5.14"]["found"]
    patch = f"{ARGO}/base/workflow-controller-deployment-patch.yaml"
    assert entry["overridden_by"] == [{"file": patch, "line": 10}]


# -- 26.03 -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def listed() -> list[str]:
    lines = (DATA / "images-26.03.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_26_03_has_the_images_that_were_read_in_it(real_site: RealSite, listed: list[str]) -> None:
    assert listed == sorted(set(listed))
    found = by_ref(real_site("26.03"))
    sited = [ref for ref, i in found.items() if any(f["how"] != "catalogue" for f in i["found"])]
    assert sorted(sited) == listed


def test_26_03_has_the_hidden_images_that_were_read_in_its_sources(real_site: RealSite) -> None:
    lines = (DATA / "hidden-images-26.03.txt").read_text().splitlines()
    found = {
        " ".join((image["ref"], place["need"], place["redirect"]))
        for image in scanned(real_site("26.03"))["images"]
        for place in image["found"]
        if place["how"] == "catalogue"
    }
    assert sorted(found) == [line for line in lines if not line.startswith("#")]


def rest(site: Site) -> Iterator[tuple[str, str]]:
    """Component and line of the rendered manifests, without what scan lists, CRDs and `SYNC`."""
    known = sorted(by_ref(site), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, known)))
    for item in Session.open(site.root, "", quiet=True).render_components():
        for document in item.objects:
            if not document.is_crd and "pipelines-profile-controller-code" not in document.text:
                for line in document.text.splitlines():
                    yield item.component.name, pattern.sub("KNOWN", line)


REFERENCE = re.compile(
    r"(?<![\w/.@-])(?:[a-z0-9-]+\.)+[a-z]{2,}(?::\d+)?/[\w./-]+(?::[\w.-]*\d[\w.-]*|@sha256:\w+)"
)
NO_REFERENCE = re.compile(r"serving\.kserve\.io/|apps?\.kubernetes\.io/")


@pytest.mark.parametrize("version", RELEASES)
def test_nothing_else_in_the_manifests_has_the_form_of_a_reference(
    real_site: RealSite, version: str
) -> None:
    found = {
        (component, match[0])
        for component, line in rest(real_site(version))
        for match in REFERENCE.finditer(line)
        if not NO_REFERENCE.match(match[0])
    }
    assert found == set()


IMAGE_LINE = re.compile(r"[\"']?[\w./-]*[iI](?:mage|MAGE)[\"']?\s*:\s*(?P<value>\S.*)")
HALVES = {
    '"proxyv2"',  # joined with the hub
    '"pilot"',  # Helm's own record; istiod's image is in its Deployment
    '"kserve/art-explainer"',  # joined with its version
}


@pytest.mark.parametrize("version", RELEASES)
def test_every_line_that_names_an_image_is_read(real_site: RealSite, version: str) -> None:
    """What is left after `image:` is a template, a placeholder or half a name."""
    left = set()
    for component, line in rest(real_site(version)):
        match = IMAGE_LINE.search(line)
        if not match or line.lstrip().startswith("#"):
            continue
        value = match["value"].rstrip(",")
        if "KNOWN" in value or "{{" in value or value.startswith("$") or value in HALVES:
            continue
        left.add((component, line.strip()))
    assert left == OTHER_LINES[version]


OTHER_LINES: dict[str, set[tuple[str, str]]] = {
    "26.03": {
        ("knative-serving", 'kubernetes.podspec-volumes-image: "disabled"'),
        ("jupyter-web-app", "allowCustomImage: true"),
    },
    "1.10.2": {("jupyter-web-app", "allowCustomImage: true")},
}


# -- what it says of what it can't tell ------------------------------------------------------------

SCRIPT = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: code, namespace: n}
data:
  sync.py: |
    A = os.environ.get("A_IMAGE", "ghcr.io/x/a")
    T = os.environ["A_TAG"]
"""
READER = deployment("reader", "python:3.11") + (
    "        env: ENV\n      volumes: [{name: v, configMap: {name: code}}]\n"
)


@pytest.mark.parametrize(
    ("environment", "ref"),
    [
        ("[{name: A_TAG, value: v2}]", "ghcr.io/x/a:v2"),
        ("[{name: A_IMAGE, value: quay.io/a}, {name: A_TAG, value: v2}]", "quay.io/a:v2"),
        ("[]", "ghcr.io/x/a"),
    ],
)
def test_a_script_takes_its_tag_from_the_pod_that_mounts_it(
    tmp_path: Path, kfdeploy: Runner, environment: str, ref: str
) -> None:
    site = workspace(tmp_path, kfdeploy, SCRIPT + READER.replace("ENV", environment))
    answer = kfdeploy("scan", "--format", "json", cwd=site).json
    scripts = {i["ref"] for i in answer["images"] for f in i["found"] if f["how"] == "script"}
    assert scripts == {ref}
    assert bool(answer["problems"]) == (ref == "ghcr.io/x/a")


def test_a_schemas_default_image_is_a_problem_and_no_image(
    tmp_path: Path, kfdeploy: Runner
) -> None:
    crd = (
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n"
        "metadata:\n  name: x.x.io\nspec:\n  group: x.io\n  names: {kind: X, plural: xs}\n"
        "  scope: Cluster\n  versions:\n  - name: v1\n    schema:\n      openAPIV3Schema:\n"
        "        properties:\n          image:\n            default: ghcr.io/x/a:1\n"
        "            type: string\n        type: object\n    served: true\n    storage: true\n"
    )
    answer = kfdeploy("scan", "--format", "json", cwd=workspace(tmp_path, kfdeploy, crd)).json
    assert answer["images"] == []
    assert answer["problems"] == [
        {
            "what": "ghcr.io/x/a:1 is a default in a schema",
            "where": "CustomResourceDefinition x.x.io",
        }
    ]


def test_a_second_scan_answers_the_same_from_the_cache(small_site: Site) -> None:
    first = Session.open(small_site.root, "", quiet=True).build_inventory()
    again = Session.open(small_site.root, "", quiet=True).build_inventory()
    assert first == again
