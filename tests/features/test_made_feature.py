"""A new feature is one folder and one line elsewhere: everything else asks the list.

The package is copied, the folder is put into the copy, and the line into its list. What runs is the
copy, as an operator would run it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import kfdeploy as package
from tests.conftest import Done, Runner, edit_workspace, need_programs
from tests.support.workspaces import deployment, workspace

IMAGE = "docker.io/library/busybox:1"
DIGEST = "sha256:" + "b" * 64
FOLDER = {
    "__init__.py": '"""Greet the workloads of a site."""\n',
    "feature.py": '''\
"""Greet the workloads of a site."""

from kfdeploy.features.feature import (
    Feature,
    FeatureImage,
    FeaturePatch,
    FeatureRelease,
    FeatureSettings,
)
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.patchfile.patch_file import format_operation, target_yaml

RELEASE = "kfdeploy-greetings"
GREETER = ObjectKey("v1", "Pod", "n", "greeter")
IMAGE = "docker.io/library/busybox:1"


class GreetingsSettings(FeatureSettings):
    """A greeting for each Deployment."""

    word: str = "hello"


class GreetingsFeature(Feature[GreetingsSettings]):
    name = "greetings"
    settings_model = GreetingsSettings

    def build_patches(self, component, objects):
        for item in objects:
            if item.key.kind == "Deployment":
                labels = "{greeting: {{ .Values.greetings.text | toJson }}}"
                operation = format_operation("add", ("metadata", "labels"), labels)
                yield FeaturePatch(item.key, f"{target_yaml(item.key)}patch:\\n{operation}")

    def build_releases(self):
        yield FeatureRelease(RELEASE, self.read_templates())

    def list_images(self):
        yield FeatureImage(IMAGE, RELEASE, GREETER, "spec.containers[name=main].image")

    def list_notes(self, environment):
        if self.enabled:
            yield f"{environment.name} is greeted with {self.settings.word}"

    def check_set(self, content):
        if self.enabled and not any("name: greeter" in text for text in content.manifests):
            yield "nobody greets"
''',
    "init.yaml": "  # Greetings.\n  greetings:\n    enabled: true\n    # word: hello\n",
    "values.gotmpl": 'text: {{ printf "%s-%s" .settings.word .environment.name }}\n',
    "templates/pod-greeter.yaml.gotmpl": """\
apiVersion: v1
kind: Pod
metadata: {name: greeter, namespace: n}
spec:
  containers:
  - name: main
    image: {{ (index .Values.images "docker.io/library/busybox:1").ref | toJson }}
    args: [{{ .Values.greetings.text | toJson }}]
""",
}
LINE = "FEATURES: Final[tuple[type[Feature[Any]], ...]] = (AdmissionFeature,"
IMPORT = "from kfdeploy.features.feature import Feature,"


@pytest.fixture(scope="module")
def with_greetings(tmp_path_factory: pytest.TempPathFactory, kfdeploy: Runner) -> Runner:
    """The command line of a kfdeploy that has the feature."""
    root = tmp_path_factory.mktemp("made")
    shutil.copytree(Path(str(package.__file__)).parent, root / "kfdeploy")
    for name, text in FOLDER.items():
        path = root / "kfdeploy" / "features" / "greetings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    registry = root / "kfdeploy" / "features" / "registry.py"
    text = registry.read_text()
    assert text.count(LINE) == text.count(IMPORT) == 1
    added = "from kfdeploy.features.greetings.feature import GreetingsFeature\n"
    text = text.replace(IMPORT, added + IMPORT).replace(LINE, f"{LINE} GreetingsFeature,")
    registry.write_text(text)
    return replace(
        kfdeploy,
        command=(sys.executable, "-P", "-m", "kfdeploy.cli"),
        env={**kfdeploy.env, "PYTHONPATH": str(root)},
        forks=None,
    )


@pytest.fixture(scope="module")
def site(with_greetings: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one Deployment, and the feature on by `init --features`."""
    need_programs("kustomize")
    folder = tmp_path_factory.mktemp("greeted")
    plain = workspace(folder, with_greetings, deployment("web", "quay.io/org/web:2"))
    root = folder / "site"
    with_greetings(
        *("init", root, "--upstream", folder / "up", "--ref", "1.0"),
        *("--registry", "r.test:5000", "--features", "greetings"),
    )
    shutil.copytree(plain / "upstream", root / "upstream", symlinks=True)
    shutil.copy(plain / "upstream.lock", root)
    entries = "".join(
        f"- image: {ref.partition(':')[0]}@{DIGEST}\n  annotations: {{kbld.carvel.dev/id: {ref}}}\n"
        for ref in (IMAGE, "quay.io/org/web:2")
    )
    (root / "images.lock").write_text(
        f"apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n{entries}"
    )
    return root


@pytest.fixture(scope="module")
def rendered(site: Path, with_greetings: Runner) -> Done:
    edit_workspace(site, {"features.greetings.word": "welcome"})
    with_greetings("lock", "--offline", cwd=site)
    with_greetings("patch", cwd=site)
    return with_greetings("render", cwd=site)


def test_init_writes_its_section_on_or_commented(site: Path) -> None:
    text = (site / "kfdeploy.yaml").read_text()
    assert text.endswith(
        "features:\n#   # In users' namespaces, images are led to the private registry, and others"
        + text.partition("and others")[2]
    )
    assert "\n  # Greetings.\n  greetings:\n    enabled: true\n    # word: hello\n" in text


def test_the_schema_has_its_settings(site: Path, with_greetings: Runner) -> None:
    schema = with_greetings("schema", cwd=site).json
    assert schema["$defs"]["GreetingsSettings"]["properties"]["word"]["default"] == "hello"
    assert schema == json.loads((site / "kfdeploy.schema.json").read_text())


def test_a_mistake_in_its_section_is_named_with_its_line(
    site: Path, with_greetings: Runner, tmp_path: Path
) -> None:
    text = (site / "kfdeploy.yaml").read_text().replace("    # word: hello", "    wort: hello")
    (tmp_path / "kfdeploy.yaml").write_text(text)
    done = with_greetings("scan", "-C", tmp_path, check=1)
    line = text[: text.index("    wort")].count("\n") + 1
    assert f"kfdeploy.yaml:{line}: features.greetings.wort: unknown key" in done.stderr


def test_its_image_is_scanned_and_locked(
    site: Path, with_greetings: Runner, rendered: Done
) -> None:
    assert IMAGE in with_greetings("scan", "--format", "refs", cwd=site).stdout.split()
    (use,) = next(
        image["found"]
        for image in with_greetings("scan", "--output", "json", cwd=site).json["images"]
        if image["ref"] == IMAGE
    )
    assert (use["component"], use["redirect"]) == ("kfdeploy-greetings", "patch")
    assert f'ref: "{IMAGE}"' in (site / "images.sources.yaml").read_text()


def test_render_applies_its_patch_and_installs_its_object(site: Path, rendered: Done) -> None:
    assert "note: default is greeted with welcome" in rendered.stderr
    charts = site / "releases" / "default" / "charts"
    yaml = YAML(typ="safe")
    web = yaml.load((charts / "one" / "charts" / "objects" / "objects.yaml").read_text())
    assert web["metadata"]["labels"] == {"greeting": "welcome-default"}
    text = (charts / "kfdeploy-greetings" / "charts" / "objects" / "objects.yaml").read_text()
    (container,) = yaml.load(text)["spec"]["containers"]
    assert container["image"] == f"r.test:5000/docker.io/library/busybox:1@{DIGEST}"
    assert container["args"] == ["welcome-default"]


def test_plain_helmfile_gives_the_same(site: Path, rendered: Done, with_greetings: Runner) -> None:
    import subprocess

    need_programs("helmfile", "helm", "kustomize")
    done = subprocess.run(
        ["helmfile", "template", "--skip-deps"],
        cwd=site,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(site.parent),
            "HELMFILE_UPGRADE_NOTICE_DISABLED": "true",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "greeting: welcome-default" in done.stdout
    assert f"r.test:5000/docker.io/library/busybox:1@{DIGEST}" in done.stdout


def test_verify_asks_its_check(
    site: Path, rendered: Done, with_greetings: Runner, tmp_path: Path
) -> None:
    with_greetings("verify", "--offline", cwd=site)
    broken = tmp_path / "site"
    shutil.copytree(site, broken, symlinks=True)
    (broken / "patches" / "kfdeploy-greetings" / "pod-greeter.yaml.gotmpl").unlink()
    with_greetings("render", cwd=broken)
    done = with_greetings("verify", "--offline", cwd=broken, check=3)
    assert "error: nobody greets" in done.stderr


def test_it_changes_nothing_where_it_is_off(
    site: Path, with_greetings: Runner, rendered: Done, tmp_path: Path
) -> None:
    off = tmp_path / "site"
    shutil.copytree(site, off, symlinks=True)
    edit_workspace(off, {"features.greetings.enabled": False})
    with_greetings("patch", cwd=off)
    assert not [path for path in (off / "patches").rglob("*") if "greet" in path.name]
    assert IMAGE not in with_greetings("scan", "--format", "refs", cwd=off).stdout.split()
    assert "greeted" not in with_greetings("render", cwd=off).stderr
