"""An environment's values are the same in `render` and in plain Helmfile, whatever the settings.

`values.yaml.gotmpl` is run by the real Helmfile, with nothing of kfdeploy in it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.images import lockfile, sources_file
from kfdeploy.images.inventory import Inventory
from kfdeploy.images.lockfile import Lock, LockedImage
from kfdeploy.images.naming import MirrorNaming
from kfdeploy.images.sources_file import SourceImage
from kfdeploy.oci.reference import ImageRef
from kfdeploy.patch.fill import environment_values
from kfdeploy.patch.generate import build_shared_files
from kfdeploy.patch.lookups import SHARED
from kfdeploy.patch.values import build_image_values
from kfdeploy.workspace.settings_file import read_workspace
from tests.conftest import need_programs
from tests.support.refs import written

INDEX, OTHER, AMD64, ARM64, BOTH = (f"sha256:{digit * 64}" for digit in "abcde")
ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "default": {},
    "pulls": {"imagePullPolicy": "Always", "imagePullSecrets": ["one", "two"]},
    "another-registry": {"registry": {"host": "reg.test:5000", "prefix": "/a/b/"}},
    "no-prefix": {"registry": {"prefix": ""}},
    "no-host-names": {"registry": {"naming": {"keepHost": False}}},
    "shallow": {"registry": {"naming": {"maxDepth": 3}}},
    "short": {"registry": {"naming": {"maxLength": 40, "maxDepth": None}}},
    "nulls": {"registry": {"host": None, "prefix": None, "naming": None}, "imagePullPolicy": None},
    "all-at-once": {
        "registry": {"prefix": "x", "naming": {"keepHost": False, "maxDepth": 2, "maxLength": 20}},
        "platforms": ["linux/arm64", "linux/amd64", "linux/arm64"],
    },
    "one-platform": {"platforms": ["linux/amd64"]},
    "platform-nobody-has": {"platforms": ["linux/s390x"]},
    "ca": {"registry": {"ca": "ca.pem"}},
    "kubernetes-1-33": {"kubeVersion": "1.33.9"},
    "kubernetes-1-35": {"kubeVersion": "v1.35"},
    "kubernetes-1-36": {"kubeVersion": "1.36.0+k3s1"},
    "kubernetes-1-36-rc": {"kubeVersion": "1.36-rc.1"},
}
SETTINGS: dict[str, Any] = {
    "upstream": {"source": "up"},
    "components": [{"name": "a", "path": "a"}],
    "registries": {
        "private": {
            "host": "registry.test",
            "prefix": "kf",
            "naming": {"keepHost": True, "maxDepth": 9, "maxLength": 200},
        }
    },
    "environments": ENVIRONMENTS,
}
FEATURES: dict[str, dict[str, Any]] = {
    "none": {},
    "off": {"admission": {"enabled": False, "allow": ["quay.io"]}},
    "on": {"admission": {"enabled": True}},
    "with settings": {
        "admission": {
            "enabled": True,
            "policies": "kyverno",
            "allow": ["r.test/tools/", "quay.io"],
            "namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
        }
    },
}
REFS = (
    "mysql:8.4",
    "mysql",
    "quay.io:443/org/deep/er/than/most/of/them:v1",
    f"ghcr.io/org/pinned@{INDEX}",
    f"ghcr.io/org/pinned-and-tagged:1.0@{INDEX}",
    "localhost/single:2",
    "gcr.io/not-locked:3",
    f"gcr.io/not-locked-pinned@{OTHER}",
    "registry.test/an.odd_name--here/with-a-path-that-is-cut-somewhere:1.0",
)


def locked(ref: str) -> LockedImage:
    parsed = ImageRef.parse(ref)
    image = ImageRef(parsed.host, parsed.path, "", INDEX)
    if "single" in ref:
        return LockedImage(written(ref), image, {"linux/amd64": INDEX})
    platforms = {"linux/amd64": AMD64, "linux/arm64/v8": ARM64}
    reduced = {"linux/amd64": AMD64, "linux/amd64,linux/arm64": BOTH}
    return LockedImage(written(ref), image, platforms, reduced=reduced)


def source(ref: str) -> SourceImage:
    return SourceImage(written(ref), "required", covered="odd_name" not in ref)


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A workspace with nothing but what values are made of, and a release that has them all."""
    settings = {**SETTINGS, "features": FEATURES[request.param]}
    (tmp_path / "kfdeploy.yaml").write_text(json.dumps(settings))
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n'\"\\\n")
    lock = Lock([locked(ref) for ref in REFS if "not-locked" not in ref])
    lockfile.write_lock(tmp_path / "images.lock", lock)
    text = sources_file.dump_sources(Inventory("1", ()), [source(ref) for ref in sorted(REFS)])
    (tmp_path / sources_file.NAME).write_text(text)
    shared = tmp_path / "patches" / SHARED
    shared.mkdir(parents=True)
    for name, content in build_shared_files(
        read_workspace(tmp_path).workspace.list_enabled_features(), has_objects=False
    ):
        (shared / name).write_text(content)
    (tmp_path / "all.yaml.gotmpl").write_text("{{ .Values | toJson }}\n")
    environments = {
        name: {"values": [f"patches/{SHARED}/values.yaml.gotmpl"]} for name in ENVIRONMENTS
    }
    release = {"name": "all", "chart": "./none", "values": ["all.yaml.gotmpl"]}
    (tmp_path / "helmfile.yaml").write_text(
        f"environments: {json.dumps(environments)}\n---\n{json.dumps({'releases': [release]})}\n"
    )
    return tmp_path


def helmfiles_values(root: Path, environment: str) -> Any:
    need_programs("helmfile", "helm")
    out = root / "out.yaml"
    folders = {str(Path(str(shutil.which(name))).parent) for name in ("helmfile", "helm")}
    subprocess.run(
        ["helmfile", "-e", environment, "write-values", "--output-file-template", str(out)],
        cwd=root,
        env={
            "PATH": os.pathsep.join([*sorted(folders), os.defpath]),
            "HOME": str(root),
            "HELMFILE_UPGRADE_NOTICE_DISABLED": "true",
            "KFDEPLOY_UNPINNED": "1",
        },
        check=True,
        capture_output=True,
    )
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(out.read_text())


def our_values(root: Path, environment: str) -> Any:
    workspace = read_workspace(root).workspace
    settings = workspace.environments[environment]
    images = build_image_values(
        sources_file.parse_sources((root / sources_file.NAME).read_text()),
        lockfile.read_lock(root / "images.lock"),
        MirrorNaming(workspace.resolve_registry(settings), settings.platforms),
        unpinned=True,
    )
    return environment_values(workspace, root, environment, images)["Values"]


@pytest.mark.parametrize(
    ("site", "environment"),
    [("none", name) for name in ENVIRONMENTS]
    + [("off", "default")]
    + [("on", name) for name in ENVIRONMENTS if name.startswith(("default", "kubernetes"))]
    + [("with settings", "default")],
    indirect=["site"],
)
def test_helmfile_has_the_values_of_render(site: Path, environment: str) -> None:
    ours = our_values(site, environment)
    assert helmfiles_values(site, environment) == ours
    assert set(ours["images"]) == set(REFS)
