"""The catalogue is honest: each fact has its source and means something in the real releases."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.model import catalogue_file, hidden, workload
from kfdeploy.model.catalogue import Catalogue
from kfdeploy.model.objects import Object, lookup, show_path, split
from kfdeploy.model.redirect import Redirect
from kfdeploy.model.site import sites
from kfdeploy.pipeline import patch_additions
from kfdeploy.session import Session
from tests.conftest import Site

RealSite = Callable[[str], Site]
RELEASES = ("1.10.2", "26.03")


@pytest.fixture(scope="module")
def facts() -> Catalogue:
    return catalogue_file.load()


def sources(facts: Catalogue) -> Iterator[tuple[str, str]]:
    for entry in facts.entries:
        for fact in (*entry.images, *entry.sites, *entry.asks, *entry.unused, *entry.egress):
            for source in fact.source.split("; "):
                yield entry.component, source


def test_every_fact_names_file_and_line_at_a_tag(facts: Catalogue) -> None:
    seen = 0
    for component, source in sources(facts):
        if "#" in source:
            continue
        repository, _, rest = source.partition("@")
        parts = rest.rsplit(":", 2)
        assert len(parts) == 3, f"{component}: {source}"
        assert repository.count("/") == 1
        assert int(parts[2].split("-")[0].split(",")[0]) > 0
        seen += 1
    assert seen > 50


def test_every_image_record_holds_for_a_version_that_was_read(facts: Catalogue) -> None:
    for entry in facts.entries:
        for fact in (*entry.images, *entry.asks, *entry.egress):
            for versions in fact.versions:
                if not versions.is_any:
                    assert entry.is_read(versions.first), f"{entry.component}: {versions}"
                    assert entry.is_read(versions.last), f"{entry.component}: {versions}"
        assert entry.read or not (entry.programs or entry.images), entry.component


def test_no_program_belongs_to_two_entries(facts: Catalogue) -> None:
    patterns = [pattern for entry in facts.entries for pattern in entry.programs]
    assert len(patterns) == len(set(patterns))


@pytest.fixture(params=(*RELEASES, "beside 26.03"))
def workspace(request: pytest.FixtureRequest) -> tuple[Path, str]:
    """A real release, or what upstream ships beside it; and how its mirror references begin."""
    if request.param in RELEASES:
        site = request.getfixturevalue("real_site")(request.param)
        return site.root, f"{site.private}/{site.prefix}/"
    return request.getfixturevalue("beside"), "registry.test:5000/kf/"


def final_text(root: Path) -> str:
    """The final manifests of a workspace's release set."""
    folder = root / "releases" / "default"
    return "---\n".join(
        path.read_text() for path in sorted(folder.glob("charts/*/charts/objects/objects.yaml"))
    )


MOVES = "ghcr.io/kubeflow/model-registry/controller:latest"
"""Upstream runs it by a tag that says nothing of its version."""


def test_somebody_has_read_every_program(workspace: tuple[Path, str]) -> None:
    inventory = Session.open(workspace[0], "", quiet=True).inventory()
    unknown = {program.image for program in inventory.unknown}
    assert unknown == ({MOVES} if workspace[0].name.startswith("beside") else set())


EXAMPLES = (
    "applications/spark/sparkapplication_example.yaml",
    "experimental/ray/raycluster_example.yaml",
)
"""Objects for users to copy, which no kustomization has."""


def test_every_site_rule_fits_something_in_a_real_release(
    real_site: RealSite, beside: Path, upstreams: Path, facts: Catalogue
) -> None:
    left = {rule for entry in facts.entries for rule in entry.sites}
    for root in (*(real_site(version).root for version in RELEASES), beside):
        for image in Session.open(root, "", quiet=True).inventory().images:
            for found in image.found:
                left -= {
                    rule
                    for rule in left
                    if replace(rule, line="").matches(found.object, found.field, "", image.ref)
                }
    for name in EXAMPLES:
        for item in split((upstreams / "kubeflow-26.03" / name).read_text()):
            for site in sites(item.key, item.body):
                field = show_path(item.body, site.path)
                refs = [mention.ref for mention in site.mentions]
                left -= {rule for rule in left if rule.matches(item.key, field, "", refs[0])}
    assert {(rule.kind, rule.name, rule.field) for rule in left} == set()


def test_every_redirect_changes_what_its_record_says(workspace: tuple[Path, str]) -> None:
    """Applied, each puts the mirror's reference, or a file, where the manifest had nothing."""
    root, mirror = workspace
    session = Session.open(root, "", quiet=True)
    plain = {
        item.key: item.body
        for rendered in session.rendered()
        for item in rendered.objects
        if not item.is_crd
    }
    final = {item.key: item.body for item in split(final_text(root))}
    seen = 0
    for image in session.inventory().images:
        for found in image.found:
            if found.adds is not None:
                assert _values(plain[found.object], found.adds) == [], found
                (value,) = _values(final[found.object], found.adds)
                assert value == found.adds.content if found.adds.file else mirror in value, found
                seen += 1
    assert seen >= 1


def test_a_default_that_the_manifest_overrides_is_live_without_that(
    workspace: tuple[Path, str],
) -> None:
    """Take each variable, flag or key away: the image shows, and a patch sets the same again."""
    seen = 0
    facts = catalogue_file.load()
    for rendered in Session.open(workspace[0], "", quiet=True).rendered():
        objects = [item for item in rendered.objects if not item.is_crd]
        programs = facts.programs(objects)
        for program in programs:
            for image in program.entry.images_at(program.version) if program.entry else ():
                redirect = image.redirect
                target = next((o for o in objects if redirect and redirect.is_of(o.key)), None)
                if redirect is None or target is None or not redirect.is_set(target.body, objects):
                    continue
                bare = [_without(item, redirect) for item in objects]
                found = dict(hidden.images("c", bare, programs, []))
                assert set(image.refs) <= set(found), f"{program.image}: {redirect}"
                places = {target.key: [(ref, found[ref]) for ref in image.refs]}
                ((_, _, body),) = patch_additions.additions(bare, places)
                name = redirect.env or redirect.flag or redirect.key
                assert f"sets {name}" in body
                assert f'(index .Values.images "{image.refs[0]}")' in body
                seen += 1
    assert seen >= 1


def _without(item: Object, redirect: Redirect) -> Object:
    """An object without what a redirect sets."""
    body = copy.deepcopy(item.body)
    data = body.get("data") or {}
    for name in (redirect.env, redirect.key):
        data.pop(name, None)
    for _, container in workload.containers(body):
        kept = [v for v in container.get("env") or () if v["name"] != redirect.env]
        if "env" in container:
            container["env"] = kept
        words = list(container.get("args") or ())
        for index, word in reversed(list(enumerate(words))):
            if redirect.flag and str(word).partition("=")[0] == redirect.flag:
                del words[index : index + (1 if "=" in str(word) else 2)]
        if "args" in container:
            container["args"] = words
    return Object(json.dumps(body))


def _values(body: dict[str, Any], redirect: Redirect) -> list[str]:
    """What an object says where a redirect puts something."""
    if redirect.key:
        return [str(v) for k, v in (body.get("data") or {}).items() if k == redirect.key]
    if redirect.field:
        try:
            return [lookup(body, tuple(redirect.field.split(".")))]
        except KeyError:
            return []
    (container,) = [
        one for _, one in workload.containers(body) if one["name"] == redirect.container
    ]
    if redirect.env:
        variables = container.get("env") or ()
        return [str(v.get("value")) for v in variables if v["name"] == redirect.env]
    if redirect.flag:
        words = container.get("args") or ()
        return [w.partition("=")[2] for w in words if w.startswith(f"{redirect.flag}=")]
    mounts = [m for m in container.get("volumeMounts") or () if m["mountPath"] == redirect.file]
    return [_content(body, mount) for mount in mounts]


def _content(body: dict[str, Any], mount: dict[str, Any]) -> str:
    """The file that a mount shows: an annotation of the pod template, by a downward API volume."""
    template = body["spec"]["template"]
    (volume,) = [v for v in template["spec"]["volumes"] if v["name"] == mount["name"]]
    (item,) = [i for i in volume["downwardAPI"]["items"] if i["path"] == mount["subPath"]]
    field = item["fieldRef"]["fieldPath"]
    name = field.removeprefix("metadata.annotations['").removesuffix("']")
    return str(template["metadata"]["annotations"][name])


@pytest.mark.parametrize("release", RELEASES)
def test_what_an_operator_derives_is_at_the_mirror_by_its_tag(
    real_site: RealSite, release: str
) -> None:
    site = real_site(release)
    text = final_text(site.root)
    derived = {
        image.ref
        for image in Session.open(site.root, "", quiet=True).inventory().images
        for found in image.found
        if found.how == "catalogue" and found.adds is None and found.redirect == "patch"
    }
    assert derived
    for ref in derived:
        assert ref.endswith("-gpu")
        assert f"{ref.removesuffix('-gpu')}\n" in text


def operator(kind: str, name: str, image: str) -> list[Object]:
    container = {"name": name, "image": image}
    template = {"spec": {"containers": [container]}}
    body = {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}}
    return [Object(json.dumps({**body, "spec": {"template": template}}))]


TRAINING = "training-operator"
FLAGS = {"alpine:3.10": "flag --pytorch-init-container-image"}
GHCR, HUB = "ghcr.io/kubeflow/training-v1", "docker.io/kubeflow"


@pytest.mark.parametrize(
    ("name", "image", "version", "redirected", "offered"),
    [
        (TRAINING, "kubeflow/training-operator:v1-e1434f6", "1.5.0", "mpioperator", []),
        (TRAINING, "kubeflow/training-operator:v1-5a5f92d", "1.6.0", "mpioperator", []),
        (TRAINING, "kubeflow/training-operator:v1-855e096", "1.7.0", "mpioperator", []),
        (TRAINING, "kubeflow/training-operator:v1-9e52eb7", "1.8.0", "kubeflow", [HUB]),
        (TRAINING, "kubeflow/training-operator:v1-04f9f13", "1.8.1", "kubeflow", [HUB]),
        (TRAINING, "kubeflow/training-operator:v1-5170a36", "1.9.0", "kubeflow", [HUB]),
        (TRAINING, f"{GHCR}/training-operator:v1-5c0e763", "1.9.1", GHCR, [HUB, GHCR]),
        (TRAINING, "kubeflow/training-operator", "1.9.1", GHCR, [HUB, GHCR]),
        (TRAINING, f"{GHCR}/training-operator:v1-3f15cb8", "1.9.2", GHCR, [HUB, GHCR]),
        (TRAINING, f"{GHCR}/training-operator:v1-93c5489", "1.9.4", GHCR, [HUB, GHCR]),
    ],
)
def test_the_training_operator_pulls_what_its_release_was_built_with(
    facts: Catalogue, name: str, image: str, version: str, redirected: str, offered: list[str]
) -> None:
    objects = operator("Deployment", name, image)
    programs = facts.programs(objects)
    assert [(str(one.version), one.is_known) for one in programs] == [(version, True)]
    found = list(hidden.images("c", objects, programs, []))
    flags = {ref: place.redirect for ref, place in found if place.adds is not None}
    mpi = {f"{redirected}/kubectl-delivery:latest": "flag --mpi-kubectl-delivery-image"}
    assert flags == FLAGS | mpi
    starters = {ref for ref, place in found if ref.endswith("/storage-initializer")}
    assert starters == {f"{where}/storage-initializer" for where in offered}
    assert all(place.need == "user-choice" for ref, place in found if ref not in flags)


@pytest.mark.parametrize(
    ("image", "offered"),
    [
        ("docker.io/kubeflowkatib/katib-controller:v0.14.0", ""),
        ("docker.io/kubeflowkatib/katib-controller:v0.15.0", "tensorflow:2.11.0-gpu"),
        ("docker.io/kubeflowkatib/katib-controller:v0.16.0", "pytorch:1.12.1"),
        ("docker.io/kubeflowkatib/katib-controller:v0.17.0", "mxnet/python"),
        ("ghcr.io/kubeflow/trainer/trainer-controller-manager:v2.2.0", "flux-view-ubuntu"),
        ("ghcr.io/kubeflow/trainer/trainer-controller-manager:v2.1.0", ""),
        ("ghcr.io/kubeflow/trainer/trainer-controller-manager:v2.0.1", ""),
        ("docker.io/kubeflow/spark-operator:2.0.2", ""),
        ("docker.io/kubeflow/spark-operator:2.1.1", ""),
        ("ghcr.io/kubeflow/spark-operator/controller:2.4.0", "apache/spark"),
        ("quay.io/kuberay/operator:v1.1.1", ""),
        ("registry.k8s.io/jobset/jobset:v0.11.0", ""),
        ("registry.k8s.io/lws/lws:v0.8.0", ""),
    ],
)
def test_what_other_releases_run_was_read_at_their_versions(
    facts: Catalogue, image: str, offered: str
) -> None:
    """Of Kubeflow 1.6.1 to 1.11.0 and of what follows 26.03; `offered` is no more than a choice."""
    objects = operator("Deployment", "controller", image)
    programs = facts.programs(objects)
    assert all(program.is_known for program in programs)
    found = list(hidden.images("c", objects, programs, []))
    assert {place.need for _, place in found} <= {"user-choice"}
    assert any(offered in ref for ref, _ in found) if offered else found == []


def test_the_operator_that_1_10_0_runs_without_a_tag_is_redirected_and_what_was_meant_proposed(
    facts: Catalogue,
) -> None:
    lost = facts.lost("kubeflow/training-operator")
    assert lost is not None and lost.substitute == f"{GHCR}/training-operator:v1-5c0e763"
    for tag in ("v1-04f9f13", "latest"):
        assert facts.lost(f"kubeflow/training-operator:{tag}") is None
        assert facts.lost(f"docker.io/kubeflow/training-operator:{tag}") is None
    (moves,) = facts.programs(operator("Deployment", TRAINING, "kubeflow/training-operator:latest"))
    assert not moves.is_known


def test_objects_that_a_record_asks_for_are_beside_its_program_in_a_real_release(
    real_site: RealSite, beside: Path, facts: Catalogue
) -> None:
    """In one component: nothing looks for them in another. KServe's agent was in 1.10.0."""
    left = {image for entry in facts.entries for image in entry.images if image.objects}
    for root in (*(real_site(version).root for version in RELEASES), beside):
        for rendered in Session.open(root, "", quiet=True).rendered():
            objects = [item for item in rendered.objects if not item.is_crd]
            there = {(item.key.kind, item.key.name) for item in objects}
            for program in facts.programs(objects):
                images = program.entry.images if program.entry else ()
                left -= {image for image in images if set(image.objects) <= there}
    assert {image.refs for image in left} == {("kserve/storage-initializer:latest",)}
