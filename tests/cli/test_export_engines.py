"""`kfdeploy export flux|argocd`: a release set for other engines, in the order that it has."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import RELEASES, Runner, Site, edit_workspace
from tests.support import engines
from tests.support.cluster import Cluster
from tests.support.registries import make_certificate

KEPT = {"CustomResourceDefinition", "Namespace", "PersistentVolumeClaim", "Profile"}
PRUNE = "kustomize.toolkit.fluxcd.io/prune"
WAVE = "argocd.argoproj.io/sync-wave"
GIT = ("--repo", "https://git.example.net/platform/kf.git")

Export = Callable[..., dict[str, Any]]


def load(text: str) -> list[dict[str, Any]]:
    return [each for each in YAML(typ="safe").load_all(text) if each]


def key(body: Mapping[str, Any]) -> tuple[str, str, str, str]:
    metadata = body["metadata"]
    return (body["apiVersion"], body["kind"], metadata.get("namespace", ""), metadata["name"])


@pytest.fixture(params=RELEASES, scope="module")
def site(request: pytest.FixtureRequest, real_site: Callable[[str], Site]) -> Site:
    return real_site(request.param)


@pytest.fixture(scope="module")
def export(site: Site, kfdeploy: Runner) -> Export:
    """Documents of an exported set, by file and then by name (with the kind for Flux's source)."""

    def made(name: str, *options: str) -> dict[str, Any]:
        done = kfdeploy("export", name, *options, "-q", "--output", "json", cwd=site.root)
        return {
            file: {each["metadata"]["name"]: each for each in load(text)}
            for file, text in done.json.items()
        }

    return made


@pytest.fixture(scope="module")
def edges(site: Site, kfdeploy: Runner, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the set's order says: pairs of releases with their reasons."""
    root = site.copy(tmp_path_factory.mktemp("order") / "site")
    return kfdeploy("render", "--explain-order", "--output", "json", "-q", cwd=root).json["edges"]


def objects_of(site: Site, release: str) -> list[dict[str, Any]]:
    return load((site.set / f"charts/{release}/charts/objects/objects.yaml").read_text())


# -- Flux ------------------------------------------------------------------------------------------


def kustomizations(export: Export, *options: str) -> dict[str, Any]:
    found = export("flux", *options)["flux.yaml"]
    return {
        n.removeprefix("kubeflow-"): d for n, d in found.items() if d["kind"] == "Kustomization"
    }


def before(all_: Mapping[str, Any], name: str) -> set[str]:
    """All that a Kustomization depends on, in the end."""
    out: set[str] = set()
    todo = [name]
    while todo:
        for each in all_[todo.pop()]["spec"].get("dependsOn", ()):
            other = each["name"].removeprefix("kubeflow-")
            if other not in out:
                out.add(other)
                todo.append(other)
    return out


def test_flux_keeps_every_edge_of_the_order(export: Export, site: Site, edges: Any) -> None:
    found = kustomizations(export)
    assert edges
    for edge in edges:
        first = edge["from"] if objects_of(site, edge["from"]) else "crds"
        assert first in before(found, edge["to"]), edge
    # A kind comes before its objects, whoever brings it.
    assert all("crds" in before(found, name) for name in found if name != "crds")


def test_flux_waits_for_what_must_be_ready(export: Export, edges: Any) -> None:
    found = kustomizations(export)
    ready = [
        (edge["from"], reason["first"])
        for edge in edges
        for reason in edge["reasons"]
        if reason["ready"] and reason["first"]["kind"] != "CustomResourceDefinition"
    ]
    assert ready
    for release, first in ready:
        checked = [
            (each["kind"], each["name"]) for each in found[release]["spec"].get("healthChecks", ())
        ]
        assert (first["kind"], first["name"]) in checked, (release, first)


def test_what_flux_builds_are_the_sets_objects(export: Export, site: Site, tmp_path: Path) -> None:
    """By Flux's own packages, from the set as it is published."""
    program = engines.flux()
    (source,) = (d for d in export("flux")["flux.yaml"].values() if d["kind"] == "OCIRepository")
    pulled = tmp_path / "pulled"
    shutil.copytree(site.set, pulled)
    engines.run(program, "ignore", pulled, source["spec"]["ignore"])
    found = kustomizations(export)
    # Building Kubeflow's CRDs takes half a minute, and is done for one release's in another test.
    del found["crds"]
    assert len(found) > 25
    for name, body in found.items():
        file = tmp_path / "kustomization.json"
        file.write_text(json.dumps(body))
        built = {key(each): each for each in load(engines.run(program, "build", pulled, file))}
        wanted = {key(each): each for each in objects_of(site, name)}
        assert built.keys() == wanted.keys()
        for which, each in built.items():
            annotations = each["metadata"].get("annotations", {})
            kept = annotations.pop(PRUNE, "")
            assert (kept == "disabled") == (each["kind"] in KEPT), which
            if not annotations and "annotations" not in wanted[which]["metadata"]:
                each["metadata"].pop("annotations", None)
            for webhook in wanted[which].get("webhooks", ()):
                if webhook["clientConfig"].get("caBundle") == "":
                    del webhook["clientConfig"]["caBundle"]
            assert each == wanted[which], which


def test_flux_builds_crds_that_nothing_deletes(export: Export, site: Site, tmp_path: Path) -> None:
    body = kustomizations(export)["crds"]
    assert (body["spec"]["prune"], body["spec"]["wait"]) == (False, True)
    file = site.set / "crds" / "profiles.yaml"
    (tmp_path / "set" / "crds").mkdir(parents=True)
    shutil.copy(file, tmp_path / "set" / "crds")
    (tmp_path / "crds.json").write_text(json.dumps(body))
    text = engines.run(engines.flux(), "build", tmp_path / "set", tmp_path / "crds.json")
    built, wanted = load(text), load(file.read_text())
    assert [key(each) for each in built] == [key(each) for each in wanted]
    assert [each["metadata"]["annotations"].pop(PRUNE) for each in built] == ["disabled"]
    assert [each["spec"] for each in built] == [each["spec"] for each in wanted]


def test_flux_forces_nothing_and_takes_this_very_set(
    export: Export, site: Site, kfdeploy: Runner
) -> None:
    found = export("flux")["flux.yaml"]
    for body in found.values():
        if body["kind"] == "Kustomization":
            assert body["spec"]["force"] is False
            assert body["spec"]["prune"] is (body["metadata"]["name"] != "kubeflow-crds")
            assert (site.set / body["spec"]["path"]).is_dir()
    root = site.root
    plan = kfdeploy("publish", "--check", "--output", "json", cwd=root, check=3).json
    (tag,) = plan["tags"]
    source = found["kubeflow"]
    assert source["spec"]["ref"] == {"tag": tag, "digest": plan["digest"]}
    assert source["spec"]["url"] == f"oci://{plan['ref'].rpartition('@')[0].rpartition(':')[0]}"
    assert source["spec"]["insecure"] is True  # a registry on loopback


WEBHOOK_HEALTH = [
    ({"webhooks": [{"clientConfig": {}}]}, "InProgress"),
    ({"webhooks": [{"clientConfig": {"caBundle": ""}}]}, "InProgress"),
    ({"webhooks": [{"clientConfig": {"caBundle": "Cg=="}}]}, "InProgress"),
    ({"webhooks": [{"clientConfig": {"caBundle": "LS0tLS1CRUdJTg=="}}]}, "Current"),
    (
        {
            "webhooks": [
                {"clientConfig": {"caBundle": "LS0tLS1CRUdJTg=="}},
                {"clientConfig": {}},
            ]
        },
        "InProgress",
    ),
]
CERTIFICATE_HEALTH = [
    ({}, "error"),  # Flux asks again
    ({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}, "InProgress"),
    ({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, "Current"),
]


def test_flux_takes_for_healthy_what_is(export: Export, tmp_path: Path) -> None:
    program = engines.flux()
    found = {
        each["kind"]: each["current"]
        for body in kustomizations(export).values()
        for each in body["spec"].get("healthCheckExprs", ())
    }
    assert found.keys() >= {"ValidatingWebhookConfiguration", "Certificate"}
    table: list[tuple[str, Any]] = [
        ("ValidatingWebhookConfiguration", WEBHOOK_HEALTH),
        ("Certificate", CERTIFICATE_HEALTH),
    ]
    for kind, cases in table:
        for body, state in cases:
            assert engines.health(program, found[kind], body, tmp_path) == state, body


# -- Argo CD ---------------------------------------------------------------------------------------


def applications(export: Export, *options: str) -> dict[str, Any]:
    found = export("argocd", *options)["applications/applications.yaml"]
    return {name.removeprefix("kubeflow-"): body for name, body in found.items()}


def annotation(body: Mapping[str, Any], name: str) -> str:
    return str(body["metadata"]["annotations"][name])


def test_argo_cd_keeps_every_edge_of_the_order(export: Export, site: Site, edges: Any) -> None:
    found = applications(export)
    wave = {name: int(annotation(body, WAVE)) for name, body in found.items()}
    for edge in edges:
        first = edge["from"] if objects_of(site, edge["from"]) else f"{edge['from']}-crds"
        assert wave[first] < wave[edge["to"]], edge
        if any(reason["ready"] for reason in edge["reasons"]):
            assert annotation(found[first], "kfdeploy.io/wait") == "true"
    crds = {path.stem for path in (site.set / "crds").iterdir()}
    assert {name for name in wave if wave[name] < 0} == {f"{name}-crds" for name in crds}


def test_argo_cd_finds_each_releases_manifests_and_nothing_else(export: Export, site: Site) -> None:
    for body in applications(export).values():
        source = body["spec"]["source"]
        assert source["repoURL"].startswith("oci://")
        (file,) = (site.set / source["path"]).glob(source["directory"]["include"])
        # More than that it refuses to read for one Application.
        assert file.stat().st_size < 10 * 1024 * 1024
        assert all(each["kind"] for each in load(file.read_text()) if file.parent.name == "objects")


def test_argo_cd_deletes_nothing_where_data_is(export: Export, site: Site) -> None:
    for name, body in applications(export).items():
        policy = body["spec"]["syncPolicy"]
        kinds = {"CustomResourceDefinition"}
        if not name.endswith("-crds"):
            kinds = {each["kind"] for each in objects_of(site, name)}
        assert policy["automated"]["prune"] is not bool(kinds & KEPT), name
        assert ("Prune=false" in policy["syncOptions"]) is bool(kinds & KEPT)
        assert "ServerSideApply=true" in policy["syncOptions"]
        # One that is deleted leaves what it installed.
        assert "finalizers" not in body["metadata"]


def test_the_application_above_them_reads_the_exported_folder(
    site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    root = site.copy(tmp_path / "site")
    options = (*GIT, "--path", "sites/one", "--revision", "prod", "--to", "gitops/argocd")
    kfdeploy("export", "argocd", *options, "-q", cwd=root)
    (above,) = load((root / "gitops/argocd/root.yaml").read_text())
    assert above["spec"]["source"] == {
        "repoURL": GIT[1],
        "targetRevision": "prod",
        "path": "sites/one/gitops/argocd/applications",
    }
    assert kfdeploy("export", "argocd", *options, "--check", cwd=root).stdout == ""
    kfdeploy("export", "argocd", "--to", "gitops/argocd", "-q", cwd=root)
    assert not (root / "gitops/argocd/root.yaml").exists()


APPLICATION: dict[str, Any] = {
    "metadata": {"annotations": {"kfdeploy.io/wait": "true"}},
    "spec": {"source": {"targetRevision": "new"}},
}
NEW, OLD = {"targetRevision": "new"}, {"targetRevision": "old"}
SYNCED = {"sync": {"status": "Synced", "comparedTo": {"source": NEW}}}
STALE = {"sync": {"status": "Synced", "comparedTo": {"source": OLD}}}
APPLIED = {"operationState": {"phase": "Succeeded", "syncResult": {"source": NEW}}}
FAILED = {"operationState": {"phase": "Failed", "message": "no", "syncResult": {"source": NEW}}}
HEALTHY = {"health": {"status": "Healthy"}}
BUSY = {"health": {"status": "Progressing"}}


@pytest.mark.parametrize(
    ("waits", "status", "wanted"),
    [
        ("true", None, "Progressing"),
        ("true", {}, "Progressing"),
        ("true", {**SYNCED, **HEALTHY}, "Healthy"),
        ("true", {**SYNCED, **BUSY}, "Progressing"),
        ("true", {**STALE, **HEALTHY}, "Progressing"),
        ("true", {**STALE, **APPLIED, **HEALTHY}, "Healthy"),
        ("true", {**STALE, **FAILED, **HEALTHY}, "Degraded"),
        ("false", {**SYNCED, **BUSY}, "Healthy"),
        ("false", {**STALE, **BUSY}, "Progressing"),
        ("false", {**STALE, **FAILED}, "Degraded"),
    ],
)
def test_a_wave_waits_for_what_its_applications_say(
    waits: str, status: Any, wanted: str, small_site: Site, kfdeploy: Runner
) -> None:
    lupa = pytest.importorskip("lupa", reason="pip install lupa runs argocd-cm's health check")
    files = kfdeploy("export", "argocd", "-q", "--output", "json", cwd=small_site.root).json
    (config,) = load(files["argocd-cm.yaml"])
    script = config["data"]["resource.customizations.health.argoproj.io_Application"]
    lua = lupa.LuaRuntime()
    body = {**APPLICATION, "metadata": {"annotations": {"kfdeploy.io/wait": waits}}}
    if status is not None:
        body["status"] = status
    lua.globals().obj = lua.table_from(body, recursive=True)
    assert lua.execute(script)["status"] == wanted


# -- both ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine_crds(cluster: Cluster) -> Iterator[Cluster]:
    files = [word for path in engines.crds() for word in ("-f", str(path))]
    cluster.kubectl("apply", "--server-side", *files)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *files)
    yield cluster
    cluster.kubectl("delete", *files)


@pytest.mark.parametrize("options", [(), ("--source", "git", *GIT)], ids=["oci", "git"])
@pytest.mark.parametrize("name", ["flux", "argocd"])
def test_the_engines_own_schemas_take_it(
    name: str, options: tuple[str, ...], export: Export, engine_crds: Cluster, tmp_path: Path
) -> None:
    namespace = engine_crds.namespace(f"engine-{name}-{len(options)}-{tmp_path.name[-1]}")
    files = export(name, "--namespace", namespace, *(options or GIT))
    for number, documents in enumerate(files.values()):
        file = tmp_path / f"{number}.json"
        file.write_text(
            json.dumps({"kind": "List", "apiVersion": "v1", "items": [*documents.values()]})
        )
        engine_crds.kubectl(
            *("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", file)
        )
    engine_crds.kubectl("delete", "namespace", namespace, "--wait=false")


def test_from_git_each_path_is_the_workspaces(site: Site, export: Export) -> None:
    options = ("--source", "git", *GIT, "--path", "sites/one")
    found = export("flux", *options)["flux.yaml"]
    assert found["kubeflow"]["kind"] == "GitRepository"
    assert found["kubeflow"]["spec"]["ignore"].splitlines()[:4] == [
        "/*", "!/sites", "/sites/*", "!/sites/one",
    ]  # fmt: skip
    assert found["kubeflow-crds"]["spec"]["path"] == "./sites/one/releases/default/crds"
    body = applications(export, *options)["dex"]
    path = "sites/one/releases/default/charts/dex/charts/objects"
    assert body["spec"]["source"]["path"] == path


def test_from_git_flux_keeps_of_the_repository_only_the_sets_manifests(
    site: Site, export: Export, tmp_path: Path
) -> None:
    options = ("--source", "git", *GIT, "--path", "sites/one")
    rules = export("flux", *options)["flux.yaml"]["kubeflow"]["spec"]["ignore"]
    root = tmp_path / "repository"
    set_ = root / "sites/one/releases/default"
    shutil.copytree(site.set, set_)
    for other in ("README.yaml", "sites/two/x.yaml", "sites/one/upstream/x.yaml"):
        (root / other).parent.mkdir(parents=True, exist_ok=True)
        (root / other).write_text("a: b\n")
    engines.run(engines.flux(), "ignore", root, rules)
    left = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    charts = {path.name for path in (site.set / "charts").iterdir()}
    crds = {path.name for path in (site.set / "crds").iterdir()}
    at = "sites/one/releases/default"
    assert left == {f"{at}/charts/{name}/charts/objects/objects.yaml" for name in charts} | {
        f"{at}/crds/{name}" for name in crds
    }


def test_the_registrys_ca_and_sign_in_go_along(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    root = small_site.copy(tmp_path / "site")
    ca = make_certificate(tmp_path)[0].read_text()
    (root / "ca.pem").write_text(ca)
    edit_workspace(root, {"registries.private.ca": "ca.pem"})
    done = kfdeploy("export", "flux", "--secret", "pull", "--name", "kf", cwd=root)
    secret, source, *_ = load(done.stdout)
    assert secret["stringData"] == {"ca.crt": ca}
    assert source["spec"]["certSecretRef"]["name"] == secret["metadata"]["name"]
    assert source["spec"]["secretRef"] == {"name": "pull"}
    assert "insecure" not in source["spec"]


LONG, HINT = "n" * 60, "  hint: give a shorter --name\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("flux", "--name", "A"),
            "error: --name A: must consist of lower case letters, digits and '-'\n",
        ),
        (
            ("flux", "--interval", "often"),
            "error: --interval often: must be a duration, such as 10m or 1h\n",
        ),
        (
            ("argocd", "--source", "git"),
            "error: --source git needs the repository: --repo URL\n",
        ),
        (
            ("argocd", "--source", "git", *GIT, "--tag", "x"),
            "error: --tag is a tag of the artifact: with --source git, use --revision\n",
        ),
        (
            ("flux", *GIT, "--path", "../x"),
            "error: --path ../x: must be a folder of the repository, without '..'\n",
        ),
        (
            ("flux", "--name", LONG),
            f"error: {LONG}-crds: 65 characters; a label takes at most 63\n{HINT}",
        ),
    ],
)
def test_wrong_use_is_named(
    arguments: tuple[str, ...], said: str, small_site: Site, kfdeploy: Runner
) -> None:
    assert kfdeploy("export", *arguments, cwd=small_site.root, check=2).stderr == said


def test_a_tag_that_moves_is_followed_without_a_digest(small_site: Site, kfdeploy: Runner) -> None:
    flux = load(kfdeploy("export", "flux", "--tag", "prod", "-q", cwd=small_site.root).stdout)
    assert flux[0]["spec"]["ref"] == {"tag": "prod"}
    done = kfdeploy("export", "argocd", "--tag", "prod", cwd=small_site.root)
    assert (
        "with --tag all Applications see a new set at the same time, not in their order"
        in done.stderr
    )
