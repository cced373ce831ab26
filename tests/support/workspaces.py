"""A workspace of one component whose objects a test writes down."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kfdeploy.oci.registry.settings import MirrorSettings
from kfdeploy.workspace.settings import Workspace
from tests.conftest import Runner, edit_workspace

_KUSTOMIZATION = """\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [RESOURCE]
"""
DEPLOYMENT = """\
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: n}
spec:
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
      containers:
      - name: main
        image: IMAGE
"""


def mirror_settings(registries: dict[str, Any]) -> MirrorSettings:
    """Of a workspace with this section `registries`."""
    upstream = {"upstream": {"source": "up"}, "components": [{"name": "a", "path": "a"}]}
    return Workspace.model_validate(
        {**upstream, "registries": registries}
    ).resolve_mirror_settings()


def deployment(name: str, image: str) -> str:
    """A document; more of its only container can be appended."""
    return DEPLOYMENT.replace("NAME", name).replace("IMAGE", image)


def workspace(folder: Path, kfdeploy: Runner, objects: str) -> Path:
    """The workspace, vendored: its component is ``one``, its registry ``r.test:5000``."""
    base, example = folder / "up" / "apps" / "one", folder / "up" / "example"
    base.mkdir(parents=True)
    example.mkdir()
    (base / "objects.yaml").write_text(objects)
    for place, resource in ((base, "objects.yaml"), (example, "../apps/one")):
        text = _KUSTOMIZATION.replace("RESOURCE", resource)
        (place / "kustomization.yaml").write_text(text)
    site = folder / "ws"
    kfdeploy("init", site, "--upstream", folder / "up", "--ref", "1.0", "--registry", "r.test:5000")
    kfdeploy("vendor", cwd=site)
    return site


def workspace_of(
    folder: Path, kfdeploy: Runner, refs: Iterable[str], *, public: str, private: str, prefix: str
) -> Path:
    """A workspace whose objects name these images, locked.

    Args:
        public: HOST:PORT that all sources are pulled from.
        private: HOST:PORT of the private registry; images go below ``prefix`` there.
    """
    objects = "".join(deployment(f"d{number}", ref) for number, ref in enumerate(refs))
    site = workspace(folder, kfdeploy, objects)
    edit_workspace(
        site,
        {
            "registries.private.host": private,
            "registries.private.prefix": prefix,
            "registries.sources": {"*": public},
        },
    )
    kfdeploy("lock", "--quiet", cwd=site)
    return site
