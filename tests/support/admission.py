"""The admission policies, filled, and installed in a cluster under a name of their own."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ruamel.yaml import YAML

from kfdeploy import go_template
from kfdeploy.oci.reference import ImageRef, host_qualified_path
from tests.conftest import ROOT
from tests.support.cluster import Cluster

MANY: Final = tuple(
    f"registry-{i % 7}.example.com/an-organisation/team-{i % 13}/component-{i}/image:v1.{i}.0-rc.1"
    for i in range(600)
)
TEMPLATES: Final = ROOT / "kfdeploy" / "features" / "admission" / "templates"
REGISTRY: Final = "registry.example.com/kubeflow"
HINT: Final = (
    "; add it to images.extra in kfdeploy.yaml, then run kfdeploy lock, mirror, render and apply"
)
IMAGES: Final = (
    "mysql:8.4",
    "busybox",
    "curlimages/curl:8",
    "ghcr.io/kubeflow/kfp-launcher:2.16.0",
    "localhost/built:1",
    "localhost:5000/team/built:1",
    "quay.io:443/org/deep/er:v1",
    "UPPER/case:1",
)


def digest_of(ref: str) -> str:
    return f"sha256:{hashlib.sha256(ref.encode()).hexdigest()}"


def mirrored(ref: str) -> str:
    """Where an image of the map is in the private registry."""
    image = ImageRef.parse(ref).with_default_tag()
    return f"{REGISTRY}/{host_qualified_path(image)}:{image.tag}@{digest_of(ref)}"


def images(refs: Sequence[str]) -> dict[str, Any]:
    """The map that fills the templates."""
    out: dict[str, Any] = {}
    for ref in refs:
        image = ImageRef.parse(ref).with_default_tag()
        keys = [str(image), f"{image.repository}@{digest_of(ref)}"]
        out[ref] = {"ref": mirrored(ref), "keys": keys}
    return out


def values(**changes: Any) -> dict[str, Any]:
    """What fills the templates."""
    admission = {
        "api": "v1",
        "namespaceSelector": {"matchLabels": {"app.kubernetes.io/part-of": "kubeflow-profile"}},
        "allowed": [],
    }
    standard = {"images": images(IMAGES), "registry": REGISTRY, "imagePullSecrets": []}
    admission |= {key: changes.pop(key) for key in list(changes) if key in admission}
    return standard | {"admission": admission} | changes


def filled(settings: Mapping[str, Any], what: str = "images") -> dict[str, Any]:
    """The objects for images, or for ``pull-secrets``, by kind."""
    yaml = YAML(typ="safe")
    texts = [
        go_template.render(path.read_text(), {"Values": settings})
        for path in sorted(TEMPLATES.glob(f"*-kfdeploy-{what}.yaml.gotmpl"))
    ]
    objects = [yaml.load(text) for text in texts]
    return {each["kind"]: each for each in objects if each}


@dataclass
class Admission:
    """A cluster with the policies, for namespaces that bear their label."""

    cluster: Cluster
    label: str
    namespaces: list[str] = field(default_factory=list)

    def namespace(self) -> str:
        name = f"{self.label}-{len(self.namespaces)}"
        self.namespaces.append(name)
        return self.cluster.namespace(name, {"admission": self.label})

    def pod(
        self, spec: Mapping[str, Any] | Sequence[str], namespace: str = "", name: str = "p"
    ) -> Any:
        """The pod as it would be stored."""
        options = ["--dry-run=server", "-n", namespace or self.namespaces[0]]
        (pod,) = self.cluster.create(a_pod(spec, name), options=options)
        return pod

    def refused(self, spec: Mapping[str, Any] | Sequence[str]) -> str:
        """What the validating policy says."""
        done = self.cluster.kubectl(
            *("create", "--dry-run=server", "-n", self.namespaces[0], "-f", "-"),
            stdin=json.dumps(a_pod(spec)),
            check=False,
        )
        assert done.returncode == 1, done.stdout
        found = re.fullmatch(
            r'Error from server \(Forbidden\): error when creating "STDIN": pods "p" is forbidden: '
            rf"ValidatingAdmissionPolicy '{self.label}' with binding '{self.label}' denied "
            r"request: (.*)\n",
            done.stderr,
        )
        assert found, done.stderr
        return found[1]


def a_pod(spec: Mapping[str, Any] | Sequence[str], name: str = "p") -> dict[str, Any]:
    """A pod; of a list of images, with a container for each."""
    if not isinstance(spec, Mapping):
        spec = {"containers": [{"name": f"c{i}", "image": each} for i, each in enumerate(spec)]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": dict(spec)}


def images_of(pod: Any, kind: str = "containers") -> list[str]:
    return [container["image"] for container in pod["spec"][kind]]


def install(
    cluster: Cluster, label: str, settings: dict[str, Any], *, secrets_only: bool = False
) -> Admission:
    """The policies under a name, and for a label, of their own; and one namespace."""
    settings["admission"]["namespaceSelector"] = {"matchLabels": {"admission": label}}
    objects = list(filled(settings, "pull-secrets").values())
    if not secrets_only:
        objects += filled(settings).values()
    text = json.dumps(objects).replace("kfdeploy-images", label)
    cluster.create(*json.loads(text.replace("kfdeploy-pull-secrets", f"{label}-secrets")))
    out = Admission(cluster, label)
    out.namespace()
    known = next(iter(settings["images"]))
    create = ("create", "--dry-run=server", "-n", out.namespaces[0], "-o", "json", "-f", "-")

    def active() -> bool:  # the API server takes a moment to see policies, one after the other
        mapped, probe = (
            cluster.kubectl(*create, stdin=json.dumps(a_pod([image])), check=False)
            for image in (known, "probe")
        )
        if mapped.returncode:
            return False
        pod = json.loads(mapped.stdout)
        if settings["imagePullSecrets"] and "imagePullSecrets" not in pod["spec"]:
            return False
        return secrets_only or (images_of(pod) != [known] and label in probe.stderr)

    assert eventually(active, bool)
    return out


def eventually(ask: Callable[[], Any], enough: Callable[[Any], bool]) -> Any:
    """The answer once it is enough; after 30 seconds the last one."""
    until = time.monotonic() + 30
    while not enough(answer := ask()) and time.monotonic() < until:
        time.sleep(0.1)
    return answer
