"""What a kustomization reaches, what is wrong with it, and builds that open no connection."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from kfdeploy.errors import UserError
from kfdeploy.programs import helm
from kfdeploy.programs.process import ProgramFailed
from kfdeploy.upstream.example import read_example
from kfdeploy.upstream.kustomization import build as kustomize
from kfdeploy.upstream.kustomization.build import build_graph, build_kustomization

ROOT = Path(__file__).parents[3]
UPSTREAMS = Path(os.environ.get("KFDEPLOY_UPSTREAMS", ROOT.parent / "shared" / "upstream"))
SMALL = ROOT / "tests" / "data" / "upstream"
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {}\n"

needs_kustomize = pytest.mark.skipif(not shutil.which("kustomize"), reason="no kustomize on PATH")
needs_helm = pytest.mark.skipif(not shutil.which("helm"), reason="no helm on PATH")


def real(name: str) -> Path:
    path = UPSTREAMS / name
    if not path.is_dir():
        pytest.skip(f"{name} is not in ../shared/upstream or $KFDEPLOY_UPSTREAMS")
    return path


def tree(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, "utf-8")
    return root


def messages(root: Path, *folders: str) -> list[str]:
    return [error.message for error in build_graph(root, folders or ("a",)).errors]


def test_every_file_has_its_roles(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "a/kustomization.yaml": (
                "resources: [../b, x.yaml]\npatches: [{path: p.yaml}]\n"
                "configMapGenerator: [{name: c, files: [k=x.yaml], envs: [e.env]}]\n"
            ),
            "a/x.yaml": "",
            "a/p.yaml": "",
            "a/e.env": "",
            "b/kustomization.yml": "resources: [y.yaml]\n",
            "b/y.yaml": "",
        },
    )
    graph = build_graph(tmp_path, ["a"])
    assert graph.errors == ()
    assert graph.list_reachable("a") == ("a", "b")
    assert graph.list_files() == {
        "a/e.env": ("envs",),
        "a/kustomization.yaml": ("kustomization",),
        "a/p.yaml": ("patches",),
        "a/x.yaml": ("files", "resources"),
        "b/kustomization.yml": ("kustomization",),
        "b/y.yaml": ("resources",),
    }
    assert list(graph.list_files("b")) == ["b/kustomization.yml", "b/y.yaml"]


def test_a_remote_is_found_and_not_followed(tmp_path: Path) -> None:
    tree(tmp_path, {"a/kustomization.yaml": "resources:\n- https://github.com/o/r//d?ref=v1\n"})
    graph = build_graph(tmp_path, ["a"])
    assert graph.errors == ()
    assert [(edge.where, edge.target) for edge in graph.list_remote_edges()] == [
        ("a/kustomization.yaml:2", "")
    ]


def test_no_kustomization_at_a_root(tmp_path: Path) -> None:
    tree(tmp_path, {"a/x.yaml": ""})
    assert messages(tmp_path) == ["no kustomization at a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resources:\n- ../b\n", "a/kustomization.yaml:2: resources[0]: no kustomization at b"),
        (
            "resources:\n- x.yaml\n",
            "a/kustomization.yaml:2: resources[0]: no file or folder at a/x.yaml",
        ),
        (
            "components:\n- ../f.yaml\n",
            "a/kustomization.yaml:2: components[0]: no folder at f.yaml",
        ),
        ("patches:\n- path: ../b\n", "a/kustomization.yaml:2: patches[0].path: no file at b"),
        (
            "resources:\n- ../../x\n",
            "a/kustomization.yaml:2: resources[0]: ../../x leads out of the upstream",
        ),
        (
            "resources:\n- /etc/passwd\n",
            "a/kustomization.yaml:2: resources[0]: an absolute path: /etc/passwd",
        ),
        ("resources:\n- ''\n", "a/kustomization.yaml:2: resources[0]: an empty path"),
        (
            "resources:\n- a: [\n",
            "a/kustomization.yaml:2: broken YAML: did not find expected node content",
        ),
        (
            "resources:\n- ../two\n",
            (
                "a/kustomization.yaml:2: resources[0]: several kustomizations at two:"
                " kustomization.yaml, Kustomization"
            ),
        ),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_field(
    tmp_path: Path, text: str, message: str
) -> None:
    tree(
        tmp_path,
        {
            "a/kustomization.yaml": text,
            "b/x.txt": "",
            "f.yaml": "",
            "two/kustomization.yaml": "",
            "two/Kustomization": "",
        },
    )
    assert messages(tmp_path) == [message]


def test_all_mistakes_are_found_at_once(tmp_path: Path) -> None:
    tree(tmp_path, {"a/kustomization.yaml": "resources:\n- x\n- y\npatches:\n- path: z\n"})
    assert len(messages(tmp_path)) == 3


def test_a_cycle_names_its_chain(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "a/kustomization.yaml": "resources:\n- ../b\n",
            "b/kustomization.yaml": "resources:\n- ../c\n",
            "c/kustomization.yaml": "resources:\n- ../b\n",
        },
    )
    assert messages(tmp_path) == ["c/kustomization.yaml:2: resources[0]: a cycle: b -> c -> b"]


def test_a_base_above_is_a_cycle_for_kustomize(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {"a/b/kustomization.yaml": "resources: [..]\n", "a/kustomization.yaml": "resources: []\n"},
    )
    assert messages(tmp_path, "a/b") == [
        "a/b/kustomization.yaml:1: resources[0]: a cycle: a/b -> a"
    ]


def test_a_link_out_of_the_tree_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("resources: []\n")
    root = tree(tmp_path / "u", {"a/x": ""})
    (root / "a" / "kustomization.yaml").symlink_to(tmp_path / "secret")
    assert messages(root) == ["a/kustomization.yaml: a link that leads out of u"]


def test_a_missing_chart_is_an_error(tmp_path: Path) -> None:
    text = "helmCharts:\n- name: web\n  version: 1.0.0\n  repo: https://h.example\n"
    tree(tmp_path, {"a/kustomization.yaml": text})
    assert messages(tmp_path) == [
        "a/kustomization.yaml:2: helmCharts[0]: no chart at a/charts/web-1.0.0/web"
    ]


@pytest.mark.parametrize("name", ["kubeflow-26.03", "kubeflow-1.10.2"])
def test_a_whole_release_is_walked(name: str) -> None:
    graph = build_graph(real(name), ["example"])
    assert graph.errors == ()
    assert len(graph.nodes) > 100


def test_the_example_names_its_components() -> None:
    names = [c.name for c in read_example(real("kubeflow-26.03")).components]
    assert names == [
        "cert-manager",
        "istio-crds",
        "istio-namespace",
        "istio-install",
        "oauth2-proxy",
        "dex",
        "knative-serving",
        "cluster-local-gateway",
        "kubeflow-namespace",
        "kubeflow-roles",
        "kubeflow-istio-resources",
        "pipeline",
        "katib",
        "centraldashboard",
        "admission-webhook",
        "jupyter-web-app",
        "notebook-controller",
        "profiles",
        "pvcviewer-controller",
        "volumes-web-app",
        "tensorboard-controller",
        "tensorboards-web-app",
        "trainer",
        "user-namespace",
        "kserve",
        "models-web-app",
        "spark-operator",
    ]
    names = [c.name for c in read_example(real("kubeflow-1.10.2")).components]
    assert names[:3] == ["cert-manager", "kubeflow-issuer", "istio-crds"]
    assert len(names) == len(set(names)) == 29


def test_what_the_example_does_besides_is_a_problem(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "example/kustomization.yaml": (
                "sortOptions: {order: legacy}\ncomponents:\n# -\nresources:\n- ../common/a/base\n"
                "- extra.yaml\n- https://github.com/o/r?ref=v1\n- ../gone\nimages:\n- name: x\n"
            ),
            "example/extra.yaml": "",
            "common/a/base/kustomization.yaml": "",
        },
    )
    example = read_example(tmp_path)
    assert [(c.name, c.path, c.line) for c in example.components] == [("a", "common/a/base", 5)]
    assert [(p.where, p.message) for p in example.problems] == [
        ("example/kustomization.yaml:6", "extra.yaml is a file: no component for it"),
        (
            "example/kustomization.yaml:7",
            "https://github.com/o/r?ref=v1 is not a folder of the upstream: no component for it",
        ),
        ("example/kustomization.yaml:8", "../gone: no such folder"),
        (
            "example/kustomization.yaml:9",
            "kfdeploy does not apply the example's images",
        ),
    ]


def test_each_kustomize_component_of_the_example_is_named(tmp_path: Path) -> None:
    text = "resources: [../common/a/base]\ncomponents:\n# why\n- ../common/security/baseline\n"
    files = {"example/kustomization.yaml": text, "common/a/base/kustomization.yaml": ""}
    tree(tmp_path, {**files, "common/security/baseline/kustomization.yaml": "kind: Component\n"})
    (problem,) = read_example(tmp_path).problems
    assert problem.where == "example/kustomization.yaml:4"
    assert problem.message == (
        "../common/security/baseline: kfdeploy does not apply the example's kustomize components;"
        " write patches of your own for what it changes"
    )


def test_no_example_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no example/kustomization\.yaml"):
        read_example(tmp_path)


# -- builds -------------------------------------------------------------------------------------


@needs_kustomize
def test_a_build_may_read_files_anywhere_in_the_tree(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {"a/kustomization.yaml": "resources: [../f.yaml]\n", "f.yaml": CONFIG_MAP.format("x")},
    )
    assert build_kustomization(tmp_path, "a").decode() == CONFIG_MAP.format("x")


@needs_kustomize
def test_a_build_that_would_fetch_is_refused_before(tmp_path: Path) -> None:
    url = "https://u:secret@h.example/o/r//d?ref=v1"
    tree(tmp_path, {"a/kustomization.yaml": f"resources:\n- {url}\n"})
    with pytest.raises(UserError) as caught:
        build_kustomization(tmp_path, "a")
    assert caught.value.message == (
        "a/kustomization.yaml:2: resources[0]: https://h.example/o/r//d?ref=v1 is not vendored"
    )


@needs_kustomize
def test_a_broken_resource_is_named_with_its_line(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {"a/kustomization.yaml": "resources: [x.yaml]\n", "a/x.yaml": "kind: A\nb: [\nc: d\n"},
    )
    with pytest.raises(UserError) as caught:
        build_kustomization(tmp_path, "a")
    assert caught.value.message.startswith("a/x.yaml:3: broken YAML: ")


@needs_kustomize
def test_kustomize_s_own_refusal_names_no_path_of_this_machine(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "a/kustomization.yaml": "bases: []\nresources: [x.yaml, y.yaml]\n",
            "a/x.yaml": CONFIG_MAP.format("x"),
            "a/y.yaml": CONFIG_MAP.format("x"),
        },
    )
    with pytest.raises(ProgramFailed) as caught:
        build_kustomization(tmp_path, "a")
    assert "build of a: kustomize exited 1" in caught.value.message
    assert str(tmp_path) not in caught.value.message
    assert "Warning" not in caught.value.message


def fake(folder: Path, name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_an_old_kustomize_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, "kustomize", "v5.3.0", monkeypatch)
    with pytest.raises(UserError, match=r"kustomize is 5\.3\.0; 5\.4 or later is needed") as caught:
        kustomize.get_version()
    assert caught.value.hint is not None


def test_a_version_that_can_t_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, "kustomize", "unknown", monkeypatch)
    with pytest.raises(UserError, match="prints no version"):
        kustomize.get_version()


# -- charts -------------------------------------------------------------------------------------

CHART = {"Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.0.0\n"}


@needs_helm
def test_a_chart_is_rendered_with_crds_and_hooks_and_without_tests() -> None:
    chart = SMALL / "experimental" / "charts" / "feature-store"
    text = helm.render_chart(chart, "feature-store", "kubeflow", kube_version="1.34.0").decode()
    assert "kind: CustomResourceDefinition" in text
    assert "helm.sh/hook" in text


@needs_helm
def test_a_chart_that_answers_differently_is_named_with_its_field(tmp_path: Path) -> None:
    secret = (
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n"
        "stringData:\n  fixed: a\n  password: {{ randAlphaNum 12 }}\n"
    )
    tree(tmp_path, {**CHART, "templates/s.yaml": secret})
    with pytest.raises(UserError) as caught:
        helm.render_chart(tmp_path, "web", "ns")
    assert caught.value.message == (
        "chart web renders differently each time: Secret s: stringData.password"
    )
    assert helm.render_chart(tmp_path, "web", "ns", twice=False)


@needs_helm
def test_later_values_files_win(tmp_path: Path) -> None:
    template = CONFIG_MAP.format("x") + "data:\n  a: {{ .Values.a }}\n"
    tree(tmp_path / "c", {**CHART, "templates/c.yaml": template, "values.yaml": "a: zero\n"})
    tree(tmp_path, {"1.yaml": "a: one\n", "2.yaml": "a: two\n"})
    text = helm.render_chart(
        tmp_path / "c", "r", "n", values=[tmp_path / "1.yaml", tmp_path / "2.yaml"]
    )
    assert b"a: two" in text


@needs_helm
def test_a_missing_dependency_is_an_error(tmp_path: Path) -> None:
    dependency = "dependencies:\n- name: db\n  version: 1.x\n  repository: https://h.example\n"
    tree(tmp_path, {"Chart.yaml": CHART["Chart.yaml"] + dependency})
    with pytest.raises(
        UserError, match=r"dependency db 1\.x of https://h\.example is not in charts/"
    ):
        helm.render_chart(tmp_path, "web", "ns")


def test_an_old_helm_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, "helm", "v3.17.9+gabc", monkeypatch)
    with pytest.raises(UserError, match=r"helm is 3\.17\.9; 3\.18 or later is needed"):
        helm.require_version()
