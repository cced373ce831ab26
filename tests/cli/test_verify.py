"""`kfdeploy verify` refuses a set that was changed, is not mirrored, or leads elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import textwrap
from pathlib import Path

import pytest

from kfdeploy.http.pool import ConnectionPool, HttpRequest
from tests.conftest import Runner, Site, edit_workspace, tree
from tests.support.registries import free_port
from tests.support.standins import push_standins

OBJECTS = "charts/pipeline/charts/objects/objects.yaml"


@pytest.fixture
def site(small_site: Site, tmp_path: Path) -> Path:
    """A copy of the small site's settings and its set, to be damaged."""
    root = tmp_path / "site"
    root.mkdir()
    for name in ("kfdeploy.yaml", "images.lock"):
        (root / name).write_bytes((small_site.root / name).read_bytes())
    for name, content in tree(small_site.set).items():
        path = root / "releases/default" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def resum(folder: Path) -> None:
    """SHA256SUMS of what is there now, as one who wants to hide a change would write it."""
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        for name, content in tree(folder).items()
        if name != "SHA256SUMS"
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))


def put(site: Path, name: str, text: str) -> int:
    """Append to a file of the set, sums and all; returns the number of the first line added."""
    path = site / "releases/default" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if path.exists() else ""
    path.write_text(before + text)
    resum(site / "releases/default")
    return before.count("\n") + 1


def foreign(kfdeploy: Runner, site: Path) -> list[tuple[str, int, str]]:
    done = kfdeploy("verify", "--offline", "--output", "json", cwd=site, check=3)
    assert done.json["failures"] == []
    return [(f["file"], f["line"], f["reference"]) for f in done.json["foreign"]]


# -- whole --------------------------------------------------------------------------------------


def test_a_changed_a_missing_and_an_extra_file_are_each_named(site: Path, kfdeploy: Runner) -> None:
    folder = site / "releases/default"
    (folder / "helmfile.yaml").write_text((folder / "helmfile.yaml").read_text() + "# more\n")
    (folder / "crds/istio-install.yaml").unlink()
    (folder / "charts/katib/extra.txt").write_text("hello\n")
    done = kfdeploy("verify", "--offline", cwd=site, check=3)
    assert [line for line in done.stderr.splitlines() if line.startswith("error")] == [
        "error: charts/katib/extra.txt is not part of the set",
        "error: crds/istio-install.yaml is missing",
        "error: helmfile.yaml was changed",
    ]
    assert done.stdout.startswith("releases/default: not fit: ")


def test_a_set_without_sums_is_not_fit(site: Path, kfdeploy: Runner) -> None:
    (site / "releases/default/SHA256SUMS").unlink()
    assert "error: SHA256SUMS is missing" in (
        kfdeploy("verify", "--offline", cwd=site, check=3).stderr
    )


def test_a_folder_that_is_no_set_or_has_a_damaged_summary_is_an_error(
    site: Path, kfdeploy: Runner
) -> None:
    (site / "releases/default/summary.json").write_text("{}")
    assert kfdeploy("verify", "--offline", cwd=site, check=1).stderr == (
        "error: default/summary.json: releases: missing\n"
        "  hint: run `kfdeploy render`, or carry the set here again\n"
    )
    (site / "releases/default/summary.json").unlink()
    assert kfdeploy("verify", "--offline", cwd=site, check=1).stderr == (
        "error: default: not a release set: it has no summary.json\n"
        "  hint: `kfdeploy render` writes one\n"
    )


def test_offline_passes_where_no_registry_answers(site: Path, kfdeploy: Runner) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    here = json.loads((site / "releases/default/summary.json").read_text())["registry"]
    host = here.partition("/")[0]
    for path in (site / "releases/default").rglob("*"):
        if path.is_file():
            path.write_text(path.read_text().replace(host, nobody))
    resum(site / "releases/default")
    edit_workspace(site, {"registries.private.host": nobody})
    kfdeploy("verify", "--offline", cwd=site)
    said = kfdeploy("verify", cwd=site, check=1).stderr
    assert f"error: {nobody}: connection refused" in said


# -- nothing leads elsewhere --------------------------------------------------------------------

POD = """\
---
apiVersion: v1
kind: Pod
metadata: {name: intruder, namespace: kubeflow}
spec:
  containers:
  - name: main
    image: %s
"""
CONFIG = """\
---
apiVersion: v1
kind: ConfigMap
metadata: {name: intruder, namespace: kubeflow}
data:
%s
"""
JSON_POD = """\
---
{"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"image": "quay.io/evil/json-pod:1"}]}}
"""
DISGUISES = {
    "image field": (POD % "docker.io/evil/pod:v1", 8, "docker.io/evil/pod:v1"),
    "image field without a host": (POD % "evil/pod:v1", 8, "evil/pod:v1"),
    "image field of one word": (POD % "busybox", 8, "busybox"),
    "image field by digest": (
        POD % ("ghcr.io/evil/pod@sha256:" + "a" * 64),
        8,
        "ghcr.io/evil/pod@sha256:" + "a" * 64,
    ),
    "image field in JSON": (
        JSON_POD,
        2,
        "quay.io/evil/json-pod:1",
    ),
    "env": (
        POD % "HOME" + "    env: [{name: SIDE, value: 'evil.example.com:5000/env/x:v1'}]\n",
        9,
        "evil.example.com:5000/env/x:v1",
    ),
    "args": (
        POD % "HOME" + '    args: ["--sidecar=quay.io/evil/args:v1"]\n',
        9,
        "quay.io/evil/args:v1",
    ),
    "JSON in a ConfigMap": (
        CONFIG % """  a.json: '{"sidecar": {"image": "quay.io/evil/json:v2"}}'""",
        6,
        "quay.io/evil/json:v2",
    ),
    "shell in a ConfigMap": (
        CONFIG % "  run.sh: |\n    set -e\n    crane pull ghcr.io/evil/shell:1 x.tar",
        8,
        "ghcr.io/evil/shell:1",
    ),
    "an address for a host": (
        CONFIG % "  where: 10.1.2.3:5000/evil/address:1",
        6,
        "10.1.2.3:5000/evil/address:1",
    ),
    "base64 in a Secret": (
        "---\napiVersion: v1\nkind: Secret\nmetadata: {name: x}\ndata:\n  config: "
        + base64.b64encode(b"image: quay.io/evil/secret:1").decode()
        + "\n",
        6,
        "quay.io/evil/secret:1",
    ),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_reference_that_leads_elsewhere_is_found_in_each_disguise(
    disguise: str, site: Path, kfdeploy: Runner
) -> None:
    text, line, reference = DISGUISES[disguise]
    mirrors = json.loads((site / "releases/default/summary.json").read_text())["images"]
    text = text.replace("HOME", next(iter(mirrors.values()))["mirror"])
    first = put(site, OBJECTS, text)
    assert foreign(kfdeploy, site) == [(OBJECTS, first + line - 1, reference)]


def test_an_image_at_home_that_the_set_does_not_list_is_refused(
    site: Path, small_site: Site, kfdeploy: Runner
) -> None:
    home = f"{small_site.private}/{small_site.prefix}"
    first = put(site, OBJECTS, POD % f"{home}/quay.io/not/locked:v1")
    assert foreign(kfdeploy, site) == [(OBJECTS, first + 7, f"{home}/quay.io/not/locked:v1")]


def test_an_upstream_default_in_a_crd_is_found(site: Path, kfdeploy: Runner) -> None:
    crd = textwrap.dedent(
        """\
        ---
        apiVersion: apiextensions.k8s.io/v1
        kind: CustomResourceDefinition
        metadata: {name: x}
        spec:
          image:
            default: quay.io/evil/default:1
        """
    )
    first = put(site, "crds/istio-install.yaml", crd)
    assert foreign(kfdeploy, site) == [
        ("crds/istio-install.yaml", first + 6, "quay.io/evil/default:1")
    ]


def test_what_helm_would_take_besides_the_objects_is_found(site: Path, kfdeploy: Runner) -> None:
    template = "charts/pipeline/charts/objects/templates/more.yaml"
    put(site, template, POD % '{{ "quay.io/" }}evil/templated:1')
    line = put(site, "helmfile.yaml", "- name: more\n  chart: oci://quay.io/evil/chart\n")
    put(site, "charts/pipeline/Chart.yaml", "dependencies:\n- name: x\n")
    found = foreign(kfdeploy, site)
    files = [file for file, _, _ in found]
    assert template in files
    assert ("helmfile.yaml", line + 1, "oci://quay.io/evil/chart") in found
    assert "charts/pipeline/Chart.yaml" in files


def test_comments_and_documentation_are_no_references(site: Path, kfdeploy: Runner) -> None:
    text = (
        CONFIG % "  run.sh: |\n    # see quay.io/evil/comment:1\n    true\n"
        "  _example: |\n    image: quay.io/evil/example:1"
    )
    put(site, OBJECTS, text)
    kfdeploy("verify", "--offline", cwd=site)


def test_text_output_names_file_line_and_reference(site: Path, kfdeploy: Runner) -> None:
    first = put(site, OBJECTS, POD % "docker.io/evil/pod:v1")
    said = kfdeploy("verify", "--offline", "--quiet", cwd=site, check=3).stderr
    assert said == f"error: {OBJECTS}:{first + 7}: docker.io/evil/pod:v1 leads elsewhere\n"


# -- mirrored -----------------------------------------------------------------------------------


def test_an_image_deleted_from_the_registry_is_named(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    root = small_site.copy(tmp_path / "site")
    edit_workspace(root, {"registries.private.prefix": "to-delete"})
    kfdeploy("mirror", cwd=root)
    kfdeploy("render", cwd=root)
    kfdeploy("verify", cwd=root)
    summary = json.loads((root / "releases/default/summary.json").read_text())
    mirror = next(
        image["mirror"]
        for image in summary["images"].values()
        if "mysql" in image["mirror"] and "@" in image["mirror"]
    )
    repository, _, digest = mirror.partition("@")
    path = repository.partition("/")[2].rpartition(":")[0]
    url = f"http://{small_site.private}/v2/{path}/manifests/{digest}"
    assert ConnectionPool().send(HttpRequest("DELETE", url, {})).status == 202
    said = kfdeploy("verify", "--quiet", cwd=root, check=3).stderr
    assert said == f"error: {mirror} is not in the private registry: run `kfdeploy mirror`\n"
    assert kfdeploy("mirror", cwd=root).stdout.startswith("1 copied ")
    kfdeploy("verify", cwd=root)


def test_a_tag_that_moved_in_the_registry_is_named_where_a_place_goes_by_tag(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    root = small_site.copy(tmp_path / "site")
    edit_workspace(root, {"registries.private.prefix": "to-move"})
    kfdeploy("mirror", cwd=root)
    kfdeploy("render", cwd=root)
    report = kfdeploy("verify", "--output", "json", cwd=root).json
    by_tag = report["proof"]["byTag"]["quay.example.com/kserve/huggingfaceserver:v0.15.0"]
    assert "@" not in by_tag
    path = by_tag.partition("/")[2].rpartition(":")[0]
    push_standins(small_site.private, ["another.example.com/image:v0.15.0"], lambda ref: path)
    said = kfdeploy("verify", "--quiet", cwd=root, check=3).stderr
    assert re.fullmatch(
        rf"error: {re.escape(by_tag)} is sha256:\w{{64}} in the private registry, and not what"
        " images.lock has\n",
        said,
    )
    kfdeploy("mirror", cwd=root)
    kfdeploy("verify", cwd=root)
