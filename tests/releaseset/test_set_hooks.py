"""What a set's `helmfile.yaml` lets kubectl do before a release, on a real API server."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from kfdeploy.releaseset import format
from kfdeploy.releaseset.format import RenderedRelease
from tests.support.cluster import Cluster
from tests.support.registries import make_certificate

NAME = "order-hooks"


def commands(folder: Path, **more: Any) -> list[list[str]]:
    """The arguments of the hooks, with paths that are below the set's folder."""
    text = format.dump_helmfile(
        [RenderedRelease("a", "", objects=1, stored=0, **more)], "r", None, "1.36.0"
    )
    hooks = YAML(typ="safe").load(text)["releases"][0]["hooks"]
    return [
        [str(folder / word) if word.startswith("crds/") else word for word in hook["args"]]
        for hook in hooks
    ]


def test_kinds_are_served_when_the_hooks_are_done(cluster: Cluster, tmp_path: Path) -> None:
    schema = {"openAPIV3Schema": {"type": "object"}}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{NAME}.test"},
        "spec": {
            "group": f"{NAME}.test",
            "names": {"kind": "Thing", "plural": "things"},
            "scope": "Cluster",
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    (tmp_path / "crds").mkdir()
    (tmp_path / "crds" / "a.yaml").write_text(json.dumps(crd))
    for words in commands(tmp_path, crds="there are some", crd_count=1):
        cluster.kubectl(*words)
    thing = {"apiVersion": f"{NAME}.test/v1", "kind": "Thing", "metadata": {"name": "x"}}
    assert cluster.create(thing)[0]["kind"] == "Thing"


def test_a_webhooks_ca_is_waited_for(cluster: Cluster, tmp_path: Path) -> None:
    client: dict[str, str] = {"url": "https://localhost:1/"}
    rule = {
        "apiGroups": [f"{NAME}.none"],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["none"],
    }
    webhook = {
        "name": f"{NAME}.none.test",
        "clientConfig": client,
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "rules": [rule],
    }
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": NAME},
        "webhooks": [webhook],
    }
    kind = "validatingwebhookconfiguration"
    (words,) = commands(tmp_path, crds="", crd_count=0, trusts=(f"{kind}/{NAME}",))
    cluster.create(configuration)
    done = cluster.kubectl(*(word.replace("120s", "1s") for word in words), check=False)
    assert (done.returncode, "timed out waiting" in done.stderr) == (1, True)
    client["caBundle"] = base64.b64encode(make_certificate(tmp_path)[0].read_bytes()).decode()
    cluster.kubectl("replace", "-f", "-", stdin=json.dumps(configuration))
    assert "condition met" in cluster.kubectl(*words).stdout
