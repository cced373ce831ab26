"""The catalogue is honest: each fact has its source and means something in the real releases."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.catalogue import hidden_images, load
from kfdeploy.catalogue.facts import Catalogue
from kfdeploy.images.inventory import ImageUse
from kfdeploy.images.redirect import Redirect
from kfdeploy.images.sites import find_sites
from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.objects import Object, ObjectKey, get_field, show_path, split_objects
from kfdeploy.patch import additions
from kfdeploy.session import Session
from tests.conftest import CURRENT, PREVIOUS, RELEASES, Site
from tests.support.refs import written

RealSite = Callable[[str], Site]


@pytest.fixture(scope="module")
def facts() -> Catalogue:
    return load.load_catalogue()


def sources(facts: Catalogue) -> Iterator[tuple[str, str]]:
    for entry in facts.entries:
        facts_of: tuple[Any, ...] = (*entry.images, *entry.sites, *entry.asks, *entry.unused)
        for fact in (*facts_of, *entry.egress):
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
        records: tuple[Any, ...] = (*entry.images, *entry.asks, *entry.egress)
        for fact in records:
            for versions in fact.versions:
                if not versions.is_any:
                    assert entry.is_reviewed(versions.first), f"{entry.component}: {versions}"
                    assert entry.is_reviewed(versions.last), f"{entry.component}: {versions}"
        assert entry.read or not (entry.programs or entry.images), entry.component


def test_no_program_belongs_to_two_entries(facts: Catalogue) -> None:
    patterns = [pattern for entry in facts.entries for pattern in entry.programs]
    assert len(patterns) == len(set(patterns))


PIPELINES = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: ml-pipeline, namespace: kubeflow}
spec:
  template:
    spec:
      containers:
      - {name: ml-pipeline-api-server, image: IMAGE}
"""
GONE = "gcr.io/ml-pipeline/kfp-driver@sha256:"
LIST, OBJECT = "[]", '{"loadSamplesOnRestart": false, "pipelines": []}'


@pytest.mark.parametrize(
    ("image", "driver", "tutorials", "samples"),
    [
        ("gcr.io/ml-pipeline/api-server:2.0.5", f"{GONE}8e60086b", "python:3.7", LIST),
        ("gcr.io/ml-pipeline/api-server:2.2.0", f"{GONE}3c0665cd", "python:3.7", LIST),
        ("gcr.io/ml-pipeline/api-server:2.3.0", f"{GONE}dc8b56a2", "python:3.7", LIST),
        (
            "ghcr.io/kubeflow/kfp-api-server:2.4.1",
            "ghcr.io/kubeflow/kfp-driver:2.4.1",
            "python:3.7",
            LIST,
        ),
        (
            "ghcr.io/kubeflow/kfp-api-server:2.14.3",
            "ghcr.io/kubeflow/kfp-driver:latest",
            "python:3.7",
            OBJECT,
        ),
        (
            "ghcr.io/kubeflow/kfp-api-server:2.15.0",
            "ghcr.io/kubeflow/kfp-driver:latest",
            "python:3.9",
            OBJECT,
        ),
        (
            "ghcr.io/kubeflow/kfp-api-server:2.17.0",
            "ghcr.io/kubeflow/kfp-driver:latest",
            "python:3.11",
            OBJECT,
        ),
    ],
)
def test_what_the_pipelines_api_server_falls_back_to_is_its_versions(
    facts: Catalogue, image: str, driver: str, tutorials: str, samples: str
) -> None:
    """The driver without its variable; the tutorials' Python, and the file that takes them away."""
    objects = list(split_objects(PIPELINES.replace("IMAGE", image)))
    found = list(
        hidden_images.find_hidden_images("pipeline", objects, facts.find_programs(objects), [])
    )
    by_way = {use.redirect: use.ref.text for use in found if use.adds}
    assert set(by_way) == {
        "env V2_DRIVER_IMAGE",
        "env V2_LAUNCHER_IMAGE",
        "config sample_config.json",
    }
    assert by_way["env V2_DRIVER_IMAGE"].startswith(driver)
    assert by_way["config sample_config.json"] == tutorials
    assert [use.adds.content for use in found if use.adds and use.adds.file] == [samples]


@pytest.mark.parametrize("version", ["3.3.10", "3.4.16", "3.4.17", "3.5.14", "3.7.3", "4.0.5"])
def test_argos_executor_is_of_the_controllers_version(facts: Catalogue, version: str) -> None:
    text = PIPELINES.replace("ml-pipeline-api-server", "workflow-controller")
    text = text.replace("ml-pipeline", "workflow-controller")
    objects = list(
        split_objects(text.replace("IMAGE", f"quay.io/argoproj/workflow-controller:v{version}"))
    )
    (found,) = hidden_images.find_hidden_images(
        "pipeline", objects, facts.find_programs(objects), []
    )
    assert (found.ref.text, found.redirect) == (
        f"quay.io/argoproj/argoexec:v{version}",
        "flag --executor-image",
    )


def test_argos_lost_copies_have_argos_own_images_as_substitutes(facts: Catalogue) -> None:
    for name in ("argoexec", "workflow-controller"):
        lost = facts.find_unavailable(
            written(f"gcr.io/ml-pipeline/{name}:v3.4.17-license-compliance")
        )
        assert lost is not None
        assert lost.substitute == f"quay.io/argoproj/{name}:v3.4.17"


@pytest.fixture(params=(*RELEASES, "beside 26.03"))
def workspace(request: pytest.FixtureRequest) -> tuple[Path, str]:
    """A real release, or what upstream ships beside it; and how its mirror references begin."""
    if request.param in (CURRENT, PREVIOUS):
        site = request.getfixturevalue("real_site")(request.param)
        return site.root, f"{site.private}/{site.prefix}/"
    return request.getfixturevalue("beside"), "registry.test:5000/kf/"


OTHERS = (
    *("docker.io/istio/pilot:1.22.1", "gcr.io/istio-release/pilot:1.24.3"),
    *("gcr.io/istio-release/proxyv2:1.24.3", "gcr.io/istio-release/ztunnel:1.29.1"),
    *("kserve/kserve-controller:v0.13.0", "kserve/kserve-controller:v0.13.1"),
    *("kserve/kserve-localmodelnode-agent:v0.14.1", "kserve/kserve-controller:v0.15.2"),
    *("kserve/models-web-app:v0.13.0-rc.0", "kserve/models-web-app:v0.14.0-rc.0"),
    "quay.io/jetstack/cert-manager-controller:v1.14.5",
    *("gcr.io/kubebuilder/kube-rbac-proxy:v0.8.0", "quay.io/brancz/kube-rbac-proxy:v0.11.0"),
    *("knative.dev/serving/cmd/controller 1.12.4", "knative.dev/serving/cmd/activator 1.20.0"),
    *("knative.dev/net-istio/cmd/controller 1.12.3", "knative.dev/net-istio/cmd/webhook 1.20.1"),
    *("knative.dev/eventing/cmd/controller 1.12.6", "knative.dev/eventing/cmd/mtping 1.20.0"),
)
"""Programs of Kubeflow 1.9.0 to 1.11.0 and of its main branch; Knative's have a label's version."""


def workload_of(image: str, version: str = "") -> Object:
    """A Deployment that runs an image; by digest where a label has the version."""
    if version:
        image = f"gcr.io/knative-releases/{image}@sha256:{'0' * 64}"
    labels = {"app.kubernetes.io/version": version} if version else {}
    spec = {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}
    meta = {"name": "x", "namespace": "n", "labels": labels}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}
    return Object(json.dumps(body))


@pytest.mark.parametrize("program", OTHERS)
def test_programs_of_other_releases_were_read(facts: Catalogue, program: str) -> None:
    image, _, version = program.partition(" ")
    (found,) = facts.find_programs([workload_of(image, version)])
    assert found.is_known
    assert str(found.version) in program


@pytest.mark.parametrize(
    ("version", "pinned", "suffixed"),
    [
        ("0.13.0", {"mlserver", "torchserve", "huggingfaceserver"}, {"torchserve"}),
        ("0.14.1", {"mlserver", "torchserve", "huggingfaceserver"}, {"torchserve"}),
        *(
            (
                version,
                {"mlserver", "torchserve", "huggingfaceserver"},
                {"torchserve", "huggingfaceserver"},
            )
            for version in ("0.15.0", "0.15.2")
        ),
        ("0.16.0", {"torchserve", "huggingfaceserver"}, {"torchserve", "huggingfaceserver"}),
    ],
)
def test_a_runtime_goes_by_its_tag_where_kserve_changes_it(
    facts: Catalogue, version: str, pinned: set[str], suffixed: set[str]
) -> None:
    """Before 0.16.0 a runtimeVersion makes a broken reference of any runtime's digest."""
    programs = facts.find_programs([workload_of(f"kserve/kserve-controller:v{version}")])
    field = "spec.containers[name=kserve-container].image"
    by_tag, found = set(), []
    for name in ("mlserver", "torchserve", "huggingfaceserver"):
        key = ObjectKey("serving.kserve.io/v1alpha1", "ClusterServingRuntime", "", f"kserve-{name}")
        rule = facts.find_site_rule(key, field, "", "a/b:1", programs)
        if rule is not None and rule.pin == "tag":
            by_tag.add(name)
        site = ImageUse(
            ref=written(f"a/{name}:1"),
            component="kserve",
            object=key,
            field=field,
            path=("spec",),
            how="custom-resource",
            redirect="patch",
            pin="tag",
        )
        found.append(site)
    assert by_tag == pinned
    made = {use.ref.text for use in hidden_images.find_hidden_images("kserve", [], programs, found)}
    assert {ref.split("/")[1].removesuffix(":1-gpu") for ref in made if "-gpu" in ref} == suffixed


def final_text(root: Path) -> str:
    """The final manifests of a workspace's release set."""
    folder = root / "releases" / "default"
    return "---\n".join(
        path.read_text() for path in sorted(folder.glob("charts/*/charts/objects/objects.yaml"))
    )


MOVES = "ghcr.io/kubeflow/model-registry/controller:latest"
"""Upstream runs it by a tag that says nothing of its version."""


def test_somebody_has_read_every_program(workspace: tuple[Path, str]) -> None:
    inventory = Session.open(workspace[0], "", quiet=True).build_inventory()
    unknown = {program.image for program in inventory.unknown}
    assert unknown == ({MOVES} if workspace[0].name.startswith("beside") else set())


EXAMPLES = (
    "applications/spark/sparkapplication_example.yaml",
    "experimental/ray/raycluster_example.yaml",
)
"""Objects for users to copy, which no kustomization has."""


@pytest.mark.slow
def test_every_site_rule_fits_something_in_a_real_release(
    real_site: RealSite, beside: Path, upstreams: Path, facts: Catalogue
) -> None:
    left = {rule for entry in facts.entries for rule in entry.sites}
    for root in (*(real_site(version).root for version in (CURRENT, PREVIOUS)), beside):
        for image in Session.open(root, "", quiet=True).build_inventory().images:
            for found in image.found:
                left -= {
                    rule
                    for rule in left
                    if rule.model_copy(update={"line": ""}).matches(
                        found.object, found.field, "", image.ref.text
                    )
                }
    for name in EXAMPLES:
        for item in split_objects((upstreams / "kubeflow-26.03" / name).read_text()):
            for site in find_sites(item.key, item.body):
                field = show_path(item.body, site.path)
                refs = [mention.ref.text for mention in site.mentions]
                left -= {rule for rule in left if rule.matches(item.key, field, "", refs[0])}
    assert {(rule.kind, rule.name, rule.field) for rule in left} == set()


def test_every_redirect_changes_what_its_record_says(workspace: tuple[Path, str]) -> None:
    """Applied, each puts the mirror's reference, or a file, where the manifest had nothing."""
    root, mirror = workspace
    session = Session.open(root, "", quiet=True)
    plain = {
        item.key: item.body
        for rendered in session.render_components()
        for item in rendered.objects
        if not item.is_crd
    }
    final = {item.key: item.body for item in split_objects(final_text(root))}
    seen = 0
    for image in session.build_inventory().images:
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
    facts = load.load_catalogue()
    for rendered in Session.open(workspace[0], "", quiet=True).render_components():
        objects = [item for item in rendered.objects if not item.is_crd]
        programs = facts.find_programs(objects)
        for program in programs:
            for image in program.entry.images_at(program.version) if program.entry else ():
                redirect = image.redirect
                target = next((o for o in objects if redirect and redirect.is_of(o.key)), None)
                if redirect is None or target is None or not redirect.is_set(target.body, objects):
                    continue
                bare = [_without(item, redirect) for item in objects]
                found = {
                    use.ref.text: use
                    for use in hidden_images.find_hidden_images("c", bare, programs, [])
                }
                assert set(image.references) <= set(found), f"{program.image}: {redirect}"
                places = {target.key: [found[ref] for ref in image.references]}
                (patch,) = additions.build_additions(bare, places)
                name = redirect.env or redirect.flag or redirect.key
                assert f"sets {name}" in patch.body
                assert f'(index .Values.images "{image.references[0]}")' in patch.body
                seen += 1
    assert seen >= 1


def _without(item: Object, redirect: Redirect) -> Object:
    """An object without what a redirect sets."""
    body = copy.deepcopy(item.body)
    data = body.get("data") or {}
    for name in (redirect.env, redirect.key):
        data.pop(name, None)
    for _, container in workload.list_containers(body):
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
            return [get_field(body, tuple(redirect.field.split(".")))]
        except KeyError:
            return []
    (container,) = [
        one for _, one in workload.list_containers(body) if one["name"] == redirect.container
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
        image.ref.text
        for image in Session.open(site.root, "", quiet=True).build_inventory().images
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
    programs = facts.find_programs(objects)
    assert [(str(one.version), one.is_known) for one in programs] == [(version, True)]
    found = list(hidden_images.find_hidden_images("c", objects, programs, []))
    flags = {use.ref.text: use.redirect for use in found if use.adds is not None}
    mpi = {f"{redirected}/kubectl-delivery:latest": "flag --mpi-kubectl-delivery-image"}
    assert flags == FLAGS | mpi
    starters = {use.ref.text for use in found if use.ref.text.endswith("/storage-initializer")}
    assert starters == {f"{where}/storage-initializer" for where in offered}
    assert all(use.need == "user-choice" for use in found if use.ref.text not in flags)


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
    programs = facts.find_programs(objects)
    assert all(program.is_known for program in programs)
    found = list(hidden_images.find_hidden_images("c", objects, programs, []))
    assert {use.need for use in found} <= {"user-choice"}
    assert any(offered in use.ref.text for use in found) if offered else found == []


def test_the_operator_that_1_10_0_runs_without_a_tag_is_redirected_and_what_was_meant_proposed(
    facts: Catalogue,
) -> None:
    lost = facts.find_unavailable(written("kubeflow/training-operator"))
    assert lost is not None and lost.substitute == f"{GHCR}/training-operator:v1-5c0e763"
    for tag in ("v1-04f9f13", "latest"):
        assert facts.find_unavailable(written(f"kubeflow/training-operator:{tag}")) is None
        assert (
            facts.find_unavailable(written(f"docker.io/kubeflow/training-operator:{tag}")) is None
        )
    (moves,) = facts.find_programs(
        operator("Deployment", TRAINING, "kubeflow/training-operator:latest")
    )
    assert not moves.is_known


@pytest.mark.slow
def test_objects_that_a_record_asks_for_are_beside_its_program_in_a_real_release(
    real_site: RealSite, beside: Path, facts: Catalogue
) -> None:
    """In one component: nothing looks for them in another. KServe's agent was in 1.10.0, and Argo's
    server is in none."""
    left = {image for entry in facts.entries for image in entry.images if image.objects}
    for root in (*(real_site(version).root for version in (CURRENT, PREVIOUS)), beside):
        for rendered in Session.open(root, "", quiet=True).render_components():
            objects = [item for item in rendered.objects if not item.is_crd]
            there = {(item.key.kind, item.key.name) for item in objects}
            for program in facts.find_programs(objects):
                images = program.entry.images if program.entry else ()
                left -= {image for image in images if image.has_objects(there)}
    assert {ref for image in left for ref in image.references} == {
        "argoproj/argosay:v2",
        "kserve/storage-initializer:latest",
    }
