"""Where images hide in an object, and what is none."""

# ruff: noqa: E501, ISC004 (tables of examples)

from __future__ import annotations

from typing import Any

import pytest
from ruamel.yaml import YAML

from kfdeploy.images.sites import find_sites, names_image
from kfdeploy.kubernetes.objects import ObjectKey, get_field, show_path, split_objects

POD = """
apiVersion: v1
kind: Pod
metadata: {name: x, namespace: n}
spec:
"""


def found(text: str) -> list[tuple[str, str, str]]:
    """Reference, field and how, of each mention."""
    out = []
    for item in split_objects(text):
        for site in find_sites(item.key, item.body):
            assert get_field(item.body, site.path) == site.value
            for mention in site.mentions:
                for part in mention.parts:
                    assert site.value[part.start : part.end] == part.text
                out.append((mention.ref.text, show_path(item.body, site.path), site.how))
    return out


def refs(text: str) -> list[str]:
    return [ref for ref, _, _ in found(text)]


WORKLOADS = {
    "Pod": ("v1", "spec"),
    "Deployment": ("apps/v1", "spec.template.spec"),
    "StatefulSet": ("apps/v1", "spec.template.spec"),
    "DaemonSet": ("apps/v1", "spec.template.spec"),
    "Job": ("batch/v1", "spec.template.spec"),
    "CronJob": ("batch/v1", "spec.jobTemplate.spec.template.spec"),
    "ReplicaSet": ("apps/v1", "spec.template.spec"),
    "PodTemplate": ("v1", "template.spec"),
}


@pytest.mark.parametrize("kind", WORKLOADS)
def test_each_container_of_a_workload_is_a_site(kind: str) -> None:
    version, path = WORKLOADS[kind]
    spec: Any = {
        "initContainers": [{"name": "i", "image": "mysql"}],
        "containers": [{"name": "c", "image": "a/b:1"}, {"image": "c/d:2", "name": "d"}],
        "ephemeralContainers": [{"name": "e", "image": "e/f"}],
    }
    for step in reversed(path.split(".")):
        spec = {step: spec}
    body = {"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, **spec}
    listed = [
        (mention.ref.text, show_path(body, site.path), site.how)
        for site in find_sites(ObjectKey.from_body(body), body)
        for mention in site.mentions
    ]
    assert listed == [
        ("mysql", f"{path}.initContainers[name=i].image", "pod-spec"),
        ("a/b:1", f"{path}.containers[name=c].image", "pod-spec"),
        ("c/d:2", f"{path}.containers[name=d].image", "pod-spec"),
        ("e/f", f"{path}.ephemeralContainers[name=e].image", "pod-spec"),
    ]


CASES: dict[str, tuple[str, list[tuple[str, str, str]]]] = {
    "a flag with its value": (
        POD + "  containers: [{name: c, image: a/b, args: ['--x-image=c/d:2', --y=1]}]",
        [
            ("a/b", "spec.containers[name=c].image", "pod-spec"),
            ("c/d:2", "spec.containers[name=c].args[0]", "argument"),
        ],
    ),
    "two items of one argument list": (
        POD + "  containers: [{name: c, image: a/b, args: [--executor-image, 'mysql:8.4', x]}]",
        [
            ("a/b", "spec.containers[name=c].image", "pod-spec"),
            ("mysql:8.4", "spec.containers[name=c].args[1]", "argument"),
        ],
    ),
    "a script in a command": (
        POD + "  containers: [{name: c, image: a/b, command: [sh, -c, 'run --image=c/d:1']}]",
        [
            ("a/b", "spec.containers[name=c].image", "pod-spec"),
            ("c/d:1", "spec.containers[name=c].command[2]", "argument"),
        ],
    ),
    "variables, by name or by form": (
        POD + "  containers:\n  - name: c\n    image: a/b\n    env:\n"
        "    - {name: V2_LAUNCHER_IMAGE, value: c/d}\n    - {name: ARCHIVE, value: ghcr.io/e:1}\n"
        "    - {name: EMPTY_IMAGE, value: ''}\n    - {name: NO, value: 'svc:8080'}\n"
        "    - {name: REF_IMAGE, valueFrom: {configMapKeyRef: {name: x, key: image}}}\n"
        "    - {name: NULL_IMAGE, value: null}\n    - null\n",
        [
            ("a/b", "spec.containers[name=c].image", "pod-spec"),
            ("c/d", "spec.containers[name=c].env[name=V2_LAUNCHER_IMAGE].value", "env"),
            ("ghcr.io/e:1", "spec.containers[name=c].env[name=ARCHIVE].value", "env"),
        ],
    ),
    "JSON in a variable": (
        POD + "  containers: [{name: c, image: a/b, env: [{name: X, value: '{\"image\": \"c/d:1\"}'}]}]",
        [
            ("a/b", "spec.containers[name=c].image", "pod-spec"),
            ("c/d:1", "spec.containers[name=c].env[name=X].value", "env"),
        ],
    ),
    "an image volume": (
        POD + "  volumes: [{name: v, image: {reference: data, pullPolicy: Always}}]",
        [("data", "spec.volumes[name=v].image.reference", "pod-spec")],
    ),
    "a pod template in a custom resource": (
        "apiVersion: serving.kserve.io/v1alpha1\nkind: ClusterServingRuntime\nmetadata: {name: x}\n"
        "spec:\n  containers: [{name: k, image: kserve/x:1}]\n"
        "  workerSpec: {containers: [{name: w, image: kserve/x:1-gpu}]}\n",
        [
            ("kserve/x:1", "spec.containers[name=k].image", "custom-resource"),
            ("kserve/x:1-gpu", "spec.workerSpec.containers[name=w].image", "custom-resource"),
        ],
    ),
    "a single container in a custom resource": (
        "apiVersion: serving.kserve.io/v1alpha1\nkind: ClusterStorageContainer\n"
        "metadata: {name: x}\nspec: {container: {name: s, image: 'kserve/s:1'}}\n",
        [("kserve/s:1", "spec.container.image", "custom-resource")],
    ),
    "a pod template deep in a custom resource": (
        "apiVersion: trainer.kubeflow.org/v1alpha1\nkind: ClusterTrainingRuntime\n"
        "metadata: {name: x}\nspec: {template: {spec: {replicatedJobs: [{name: n, template: {spec:"
        " {template: {spec: {containers: [{name: node, image: 'pytorch/p:2'}]}}}}}]}}}\n",
        [
            (
                "pytorch/p:2",
                "spec.template.spec.replicatedJobs[name=n].template.spec.template.spec"
                ".containers[name=node].image",
                "custom-resource",
            )
        ],
    ),
    "keys of a ConfigMap, with image in them or not": (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n"
        "  queue-sidecar-image: a/b\n  cacheImage: mysql:8\n  TENSORBOARD_IMAGE: c/d:1\n"
        "  viewer: ghcr.io/e:1\n  images: a/b:1,c/d:2\n  ML_IMAGE_VERSION: a/b:1\n",
        [
            ("a/b", "data.queue-sidecar-image", "config"),
            ("mysql:8", "data.cacheImage", "config"),
            ("c/d:1", "data.TENSORBOARD_IMAGE", "config"),
            ("ghcr.io/e:1", "data.viewer", "config"),
            ("a/b:1", "data.images", "config"),
            ("c/d:2", "data.images", "config"),
        ],
    ),
    "a script in a ConfigMap": (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n"
        "  run.sh: |\n    IMAGE=${IMAGE:-a/b:1}\n  run: |\n    #!/bin/sh\n    run ghcr.io/a:1\n",
        [("a/b:1", "data[run.sh]", "script"), ("ghcr.io/a:1", "data.run", "script")],
    ),
    "a script that joins name and tag": (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  sync.py: |\n"
        "    A = environ.get('A_IMAGE', 'ghcr.io/a')\n    B = environ.get('A_TAG', '1')\n",
        [("ghcr.io/a", "data[sync.py]", "script")],
    ),
    "joined in JSON": (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n"
        "  v: '{\"hub\": \"gcr.io/x\", \"tag\": \"1\", \"p\": {\"image\": \"proxy\"}}'\n",
        [("gcr.io/x/proxy:1", "data.v", "assembled")],
    ),
    "a Secret's plain text": (
        "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\n"
        "stringData: {c: \"image: 'a/b:1'\"}\ndata: {image: YS9iOjE=}\n",
        [("a/b:1", "stringData.c", "config")],
    ),
    "an annotation that names an image": (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x, annotations:"
        " {sidecar.istio.io/proxyImage: 'a/b:1', note: 'ghcr.io/a:1', x.io/image: word}}\nspec: {}\n",
        [("a/b:1", "metadata.annotations[sidecar.istio.io/proxyImage]", "pod-spec")],
    ),
    "the items of a List": (
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n"
        "  metadata: {name: x}\n  spec: {containers: [{name: c, image: mysql}]}\n",
        [("mysql", "spec.containers[name=c].image", "pod-spec")],
    ),
    "lists of lists": (
        "apiVersion: x.io/v1\nkind: Odd\nmetadata: {name: x}\nspec:\n  images: [[a/b:1, [c/d:2]]]\n",
        [
            ("a/b:1", "spec.images[0][0]", "custom-resource"),
            ("c/d:2", "spec.images[0][1][0]", "custom-resource"),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_site_is_found(case: str) -> None:
    text, expected = CASES[case]
    assert found(text) == expected


NONE = {
    "a schema": "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n"
    "metadata: {name: x}\nspec: {properties: {image: {type: string, default: 'ghcr.io/a:1'}}}\n",
    "documentation": "kind: ConfigMap\nmetadata: {name: x}\ndata: {_example: 'image: ghcr.io/a:1'}\n",
    "binary data": "kind: ConfigMap\nmetadata: {name: x}\nbinaryData: {image: Z2hjci5pby9hOjE=}\n",
    "labels": "kind: Pod\nmetadata: {name: x, labels: {image: 'a/b:1', x: 'ghcr.io/a:1'}}\n",
    "a selector": "kind: Deployment\nmetadata: {name: x}\n"
    "spec: {selector: {matchLabels: {image: 'a/b:1'}}}\n",
    "managed fields": "kind: Pod\nmetadata: {name: x, managedFields: [{image: 'a/b:1'}]}\n",
    "what was applied last": "kind: Pod\nmetadata:\n  name: x\n  annotations:\n"
    "    kubectl.kubernetes.io/last-applied-configuration: '{\"image\": \"ghcr.io/a:1\"}'\n",
    "no strings": "kind: Pod\nmetadata: {name: x}\nspec: {image: null, 1: {2: x}, images: [1, null]}\n"
    "containers: [null, 1, {image: null}, {image: 5}, {image: ''}]\n",
    "placeholders": "kind: Pod\nmetadata: {name: x}\nspec: {containers: [{image: $VIEWER_IMAGE},"
    " {image: '{{ .Image }}'}, {image: IMAGE_URL}]}\n",
    "pull settings": "kind: Odd\nmetadata: {name: x}\nspec: {imagePullPolicy: Always,"
    " imagePullSecrets: [{name: 'a/b'}], imageTag: v1, imageVersion: 'a/b:1'}\n",
    "group and version": "kind: Odd\nmetadata: {name: x}\nspec: {ref: {apiVersion: 'x.io/v1:a',"
    " kind: 'ghcr.io/a:1'}}\n",
    "arguments": "kind: Odd\nmetadata: {name: x}\nargs: [--image-pull-policy, 'a/b:1', --port, 8,"
    " --addr=svc:8080, --label=app.kubernetes.io/name:foo]\n",
}  # fmt: skip


@pytest.mark.parametrize("case", NONE)
def test_what_is_no_image_is_no_site(case: str) -> None:
    assert found("apiVersion: v1\n" * ("apiVersion" not in NONE[case]) + NONE[case]) == []


@pytest.mark.parametrize(
    ("key", "yes"),
    [
        ("image", True),
        ("images", True),
        ("IMAGE", True),
        ("--image", True),
        ("cacheImage", True),
        ("KFP_IMAGES", True),
        ("pytorch-init-container-image", True),
        ("defaultJobImage", True),
        ("resizeImage", True),
        ("imageRef", True),
        ("imagePullPolicy", False),
        ("IMAGE_PULL_SECRETS", False),
        ("imageVersion", False),
        ("image_tag", False),
        ("imageID", False),
        ("picture", False),
        ("", False),
    ],
)
def test_names_of_images(key: str, yes: bool) -> None:
    assert names_image(key) is yes


def test_a_name_that_a_container_takes_verbatim_needs_no_tag() -> None:
    assert refs(POD + "  containers: [{name: c, image: busybox}]") == ["busybox"]


def test_sites_come_in_document_order() -> None:
    body = YAML(typ="safe").load(
        POD
        + "  z: {image: 'z/z:1'}\n  containers: [{name: c, image: b/b}]\n  a: {image: 'a/a:1'}\n"
    )
    listed = [site.value for site in find_sites(ObjectKey.from_body(body), body)]
    assert listed == ["z/z:1", "b/b", "a/a:1"]
