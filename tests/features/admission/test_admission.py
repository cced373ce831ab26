"""The admission policies, on a real API server: what user namespaces may run, and from where."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from kfdeploy.oci.reference import ImageRef
from tests.support.admission import (
    HINT,
    MANY,
    REGISTRY,
    Admission,
    a_pod,
    digest_of,
    eventually,
    images,
    images_of,
    install,
    mirrored,
    values,
)
from tests.support.cluster import Cluster, serve_cluster
from tests.support.webhook import serve_webhook


@pytest.fixture(scope="module")
def admission(cluster: Cluster, worker_id: str) -> Admission:
    return install(cluster, f"images-{worker_id}", values())


# -- what is rewritten ----------------------------------------------------------------------------


def test_containers_init_containers_and_image_volumes_are_rewritten(admission: Admission) -> None:
    pod = admission.pod(
        {
            "initContainers": [
                {"name": "a", "image": "busybox"},
                {"name": "b", "image": "curlimages/curl:8", "restartPolicy": "Always"},
            ],
            "containers": [
                {"name": "c", "image": "mysql:8.4"},
                {"name": "d", "image": "ghcr.io/kubeflow/kfp-launcher:2.16.0"},
            ],
            "volumes": [
                {"name": "e", "emptyDir": {}},
                {"name": "f", "image": {"reference": "quay.io:443/org/deep/er:v1"}},
            ],
        }
    )
    assert images_of(pod, "initContainers") == [mirrored("busybox"), mirrored("curlimages/curl:8")]
    assert images_of(pod) == [
        mirrored("mysql:8.4"),
        mirrored("ghcr.io/kubeflow/kfp-launcher:2.16.0"),
    ]
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert volumes["f"]["image"]["reference"] == mirrored("quay.io:443/org/deep/er:v1")


NORMALISED: Final = {
    "busybox": "busybox",
    "busybox:latest": "busybox",
    "library/busybox": "busybox",
    "docker.io/busybox": "busybox",
    "docker.io/library/busybox:latest": "busybox",
    "index.docker.io/busybox": "busybox",
    "index.docker.io/library/busybox:latest": "busybox",
    "mysql:8.4": "mysql:8.4",
    "docker.io/mysql:8.4": "mysql:8.4",
    "curlimages/curl:8": "curlimages/curl:8",
    "index.docker.io/curlimages/curl:8": "curlimages/curl:8",
    "ghcr.io/kubeflow/kfp-launcher:2.16.0": "ghcr.io/kubeflow/kfp-launcher:2.16.0",
    "localhost/built:1": "localhost/built:1",
    "localhost:5000/team/built:1": "localhost:5000/team/built:1",
    "quay.io:443/org/deep/er:v1": "quay.io:443/org/deep/er:v1",
    "UPPER/case:1": "UPPER/case:1",
    f"mysql@{digest_of('mysql:8.4')}": "mysql:8.4",
    # The digest decides, whatever the tag says.
    f"mysql:9@{digest_of('mysql:8.4')}": "mysql:8.4",
    f"localhost:5000/team/built:2@{digest_of('localhost:5000/team/built:1')}": (
        "localhost:5000/team/built:1"
    ),
}


def test_a_reference_is_read_as_docker_reads_it(admission: Admission) -> None:
    pod = admission.pod(list(NORMALISED))
    assert images_of(pod) == [mirrored(ref) for ref in NORMALISED.values()]


@pytest.mark.parametrize("ref", NORMALISED)
def test_the_examples_are_what_the_grammar_says(ref: str) -> None:
    image, known = (ImageRef.parse(each).with_default_tag() for each in (ref, NORMALISED[ref]))
    assert image.repository == known.repository
    assert image.digest in ("", digest_of(NORMALISED[ref]))
    assert image.digest or image.tag == known.tag


def test_what_is_in_the_private_registry_already_is_left_alone(admission: Admission) -> None:
    refs = [
        mirrored("mysql:8.4"),
        mirrored("mysql:8.4").partition("@")[0],
        f"{REGISTRY}/our/own",
        f"{REGISTRY}/our/own:1",
    ]
    assert images_of(admission.pod(refs)) == refs


def test_a_second_time_changes_nothing(admission: Admission) -> None:
    once = admission.pod(list(NORMALISED))
    again = admission.pod(once["spec"])
    assert again["spec"] == once["spec"]


def test_other_namespaces_are_left_alone(admission: Admission) -> None:
    elsewhere = admission.cluster.namespace(f"{admission.label}-elsewhere")
    refs = ["mysql:8.4", "nowhere.example/foreign:1"]
    assert images_of(admission.pod(refs, elsewhere)) == refs


def test_a_deployments_pods_are_rewritten_and_its_template_is_not(admission: Admission) -> None:
    cluster, namespace = admission.cluster, admission.namespace()
    template = {"metadata": {"labels": {"app": "web"}}, "spec": a_pod(["mysql:8.4"])["spec"]}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": spec,
    }
    cluster.create(deployment)
    pods = eventually(
        lambda: cluster.get("pods", "-n", namespace)["items"], lambda got: len(got) == 2
    )
    assert [images_of(pod) for pod in pods] == [[mirrored("mysql:8.4")]] * 2
    # Neither the Deployment nor its ReplicaSet has changed, or makes anything anew.
    assert images_of(cluster.get("deployment", "web", "-n", namespace)["spec"]["template"]) == [
        "mysql:8.4"
    ]
    time.sleep(1)
    (owner,) = cluster.get("replicasets", "-n", namespace)["items"]
    assert images_of(owner["spec"]["template"]) == ["mysql:8.4"]
    assert owner["status"]["replicas"] == 2
    again = cluster.get("pods", "-n", namespace)["items"]
    assert {pod["metadata"]["uid"] for pod in again} == {pod["metadata"]["uid"] for pod in pods}


def test_what_a_webhook_adds_afterwards_is_rewritten_too(
    admission: Admission, tmp_path: Path
) -> None:
    """Istio, KServe and PodDefaults add containers after the policies had their turn."""
    cluster, namespace = admission.cluster, admission.namespace()
    name = f"{admission.label}-injector"

    def inject(request: Mapping[str, Any]) -> list[dict[str, Any]]:
        added = {"name": "injected", "image": "busybox"}
        if any(each["name"] == "injected" for each in request["object"]["spec"]["containers"]):
            return []
        return [{"op": "add", "path": "/spec/containers/-", "value": added}]

    with serve_webhook(tmp_path, inject) as client:
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"]}
        webhook = {
            "name": f"{name}.test.example",
            "clientConfig": client,
            "rules": [{**rule, "resources": ["pods"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }
        cluster.create(
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "MutatingWebhookConfiguration",
                "metadata": {"name": name},
                "webhooks": [webhook],
            }
        )

        def asked() -> list[str]:
            return images_of(admission.pod(["mysql:8.4"], namespace))

        try:
            found = eventually(asked, lambda got: len(got) == 2)
        finally:
            cluster.kubectl("delete", "mutatingwebhookconfiguration", name)
    assert found == [mirrored("mysql:8.4"), mirrored("busybox")]


@pytest.mark.parametrize("options", [(), ("--server-side",)])
def test_applying_the_same_again_changes_nothing(
    admission: Admission, options: tuple[str, ...]
) -> None:
    """Whoever keeps a pod as it is written does not fight the policy, and can change it."""
    cluster, namespace = admission.cluster, admission.namespaces[0]
    name = f"applied{len(options)}"

    def applied(*refs: str) -> Any:
        stdin = json.dumps(a_pod(refs, name))
        cluster.kubectl("apply", *options, "-n", namespace, "-f", "-", stdin=stdin)
        return cluster.get("pod", name, "-n", namespace)

    once, again = applied("mysql:8.4", "busybox"), applied("mysql:8.4", "busybox")
    assert images_of(once) == [mirrored("mysql:8.4"), mirrored("busybox")]
    assert again["metadata"]["resourceVersion"] == once["metadata"]["resourceVersion"]
    changed = applied("curlimages/curl:8", "busybox")
    assert images_of(changed) == [mirrored("curlimages/curl:8"), mirrored("busybox")]


# -- pods that are there already ------------------------------------------------------------------


def add_ephemeral(
    cluster: Cluster, namespace: str, name: str, images: Sequence[str], *, check: bool = True
) -> Any:
    pod = cluster.get("pod", name, "-n", namespace)
    existing = pod["spec"].get("ephemeralContainers", [])
    added = [{"name": f"e{len(existing) + i}", "image": each} for i, each in enumerate(images)]
    pod["spec"]["ephemeralContainers"] = existing + added
    done = cluster.kubectl(
        *("replace", "-f", "-", "--raw"),
        f"/api/v1/namespaces/{namespace}/pods/{name}/ephemeralcontainers",
        stdin=json.dumps(pod),
        check=check,
    )
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


def test_ephemeral_containers_are_rewritten_or_refused(admission: Admission) -> None:
    cluster, namespace = admission.cluster, admission.namespaces[0]
    cluster.create(a_pod(["mysql:8.4"], "debugged"), options=["-n", namespace])
    pod = add_ephemeral(cluster, namespace, "debugged", ["busybox"])
    assert images_of(pod, "ephemeralContainers") == [mirrored("busybox")]
    pod = add_ephemeral(cluster, namespace, "debugged", ["curlimages/curl:8"])
    assert images_of(pod, "ephemeralContainers") == [
        mirrored("busybox"),
        mirrored("curlimages/curl:8"),
    ]
    said = add_ephemeral(cluster, namespace, "debugged", ["nowhere.example/f:1"], check=False)
    assert f"not in {REGISTRY}: nowhere.example/f:1 (ephemeral container e2){HINT}" in said


def test_a_pods_new_image_is_rewritten_or_refused(admission: Admission) -> None:
    cluster, namespace = admission.cluster, admission.namespaces[0]
    cluster.create(a_pod(["mysql:8.4", "busybox"], "changed"), options=["-n", namespace])
    set_image = ("set", "image", "pod/changed", "-n", namespace)
    cluster.kubectl(*set_image, "c0=curlimages/curl:8")
    pod = cluster.get("pod", "changed", "-n", namespace)
    assert images_of(pod) == [mirrored("curlimages/curl:8"), mirrored("busybox")]
    done = cluster.kubectl(*set_image, "c1=nowhere.example/foreign:1", check=False)
    assert done.returncode == 1
    assert f"not in {REGISTRY}: nowhere.example/foreign:1 (container c1){HINT}" in done.stderr


def test_a_pod_older_than_the_policies_goes_on_as_it_is(admission: Admission) -> None:
    """A rewritten image would restart its containers, and a refusal would keep it for ever."""
    cluster = admission.cluster
    namespace = cluster.namespace(f"{admission.label}-older")
    refs = ["mysql:8.4", "nowhere.example/foreign:1"]
    old = a_pod(refs, "old")
    old["metadata"]["finalizers"] = ["test.example/held"]
    cluster.create(old, options=["-n", namespace])
    add_ephemeral(cluster, namespace, "old", ["nowhere.example/debug:1"])
    cluster.kubectl("label", "namespace", namespace, f"admission={admission.label}")
    told = cluster.kubectl("get", "namespace", namespace, "--show-labels").stdout
    assert admission.label in told
    eventually(lambda: is_policed(admission, namespace), bool)
    cluster.kubectl("label", "pod", "old", "-n", namespace, "some=label")
    pod = add_ephemeral(cluster, namespace, "old", ["busybox"])
    assert images_of(pod) == refs
    assert images_of(pod, "ephemeralContainers") == ["nowhere.example/debug:1", mirrored("busybox")]
    cluster.kubectl("delete", "pod", "old", "-n", namespace, "--wait=false", "--grace-period=0")
    cluster.kubectl(
        *("patch", "pod", "old", "-n", namespace, "--type=merge"),
        *("-p", '{"metadata": {"finalizers": null}}'),
    )
    cluster.kubectl("wait", "--for=delete", "pod/old", "-n", namespace, "--timeout=30s")


def is_policed(admission: Admission, namespace: str) -> bool:
    return images_of(admission.pod(["mysql:8.4"], namespace)) == [mirrored("mysql:8.4")]


# -- what is refused ------------------------------------------------------------------------------


def test_an_image_that_nobody_mirrored_is_refused_with_what_to_do(admission: Admission) -> None:
    said = admission.refused(["mysql:8.4", "nowhere.example/foreign:1"])
    assert said == f"not in {REGISTRY}: nowhere.example/foreign:1 (container c1){HINT}"


def test_all_places_are_judged(admission: Admission) -> None:
    spec = {
        "initContainers": [{"name": "a", "image": "foreign/a"}],
        "containers": [{"name": "b", "image": "foreign/b:1"}],
        "volumes": [{"name": "c", "image": {"reference": "foreign/c:1"}}],
    }
    assert admission.refused(spec) == (
        f"not in {REGISTRY}: foreign/b:1 (container b), foreign/a (init container a),"
        f" foreign/c:1 (volume c){HINT}"
    )


def test_five_of_many_are_named(admission: Admission) -> None:
    said = admission.refused([f"foreign/{'long' * 60}{i}:1" for i in range(40)])
    named = ", ".join(f"foreign/{'long' * 60}{i}:1 (container c{i})" for i in range(5))
    assert said == f"not in {REGISTRY}: {named} and 35 more{HINT}"


@pytest.mark.parametrize(
    "ref",
    [
        f"mysql:8.4@{digest_of('other')}",
        "mysql",
        "mysql:8.4-debian",
        "docker.io/mysql/mysql:8.4",
        "registry.example.com.evil/kubeflow/app:1",
        "registry.example.com/kubeflow-evil/app:1",
        "registry.example.com/kubeflow:1",
        "registry.example.com/other/app:1",
        "registry.example.com:5000/kubeflow/app:1",
        "evil/registry.example.com/kubeflow/app:1",
        "index.docker.io/registry.example.com/kubeflow/app:1",
        "REGISTRY.example.com/kubeflow/app:1",
        "registry-1.docker.io/library/mysql:8.4",
        "quay.io/org/deep/er:v1",
        "Mysql:8.4",
        "my sql:8.4",
        "localhost:5001/team/built:1",
        "localhost:1",
    ],
)
def test_what_only_resembles_is_refused(admission: Admission, ref: str) -> None:
    assert admission.refused([ref]) == f"not in {REGISTRY}: {ref} (container c0){HINT}"


def test_what_is_allowed_passes_by_whole_elements(cluster: Cluster, worker_id: str) -> None:
    allowed = ["quay.io", "ghcr.io/org", "docker.io/library/redis", "docker.io/library/nginx:1"]
    admission = install(cluster, f"allowed-{worker_id}", values(allowed=allowed))
    passes = ["quay.io/a/b:1", "ghcr.io/org/a", "redis", f"redis:7@{digest_of('r')}", "nginx:1"]
    assert images_of(admission.pod(passes)) == passes
    for ref in ("quay.io:5000/a", "quay.io.evil/a", "ghcr.io/organ/a", "redis/redis", "nginx:1.2"):
        assert admission.refused([ref]) == f"not in {REGISTRY}: {ref} (container c0){HINT}"


# -- pull secrets ---------------------------------------------------------------------------------


def test_pull_secrets_are_added_once(cluster: Cluster, worker_id: str) -> None:
    settings = values(imagePullSecrets=["mirror", "other"])
    admission = install(cluster, f"secrets-{worker_id}", settings)
    containers = a_pod(["mysql:8.4"])["spec"]["containers"]
    pod = admission.pod({"containers": containers})
    assert pod["spec"]["imagePullSecrets"] == [{"name": "mirror"}, {"name": "other"}]
    assert admission.pod(pod["spec"])["spec"] == pod["spec"]
    own = [{"name": "own"}, {"name": "other"}]
    pod = admission.pod({"containers": containers, "imagePullSecrets": own})
    assert pod["spec"]["imagePullSecrets"] == [*own, {"name": "mirror"}]
    # The service account's come first, and none comes twice.
    namespace = admission.namespace()
    accounts = {"imagePullSecrets": [{"name": "other"}, {"name": "theirs"}]}
    account = ("serviceaccount", "default", "-n", namespace)
    cluster.kubectl("patch", *account, "-p", json.dumps(accounts))
    named = [*accounts["imagePullSecrets"], {"name": "mirror"}]
    pod = eventually(
        lambda: admission.pod({"containers": containers}, namespace),
        lambda got: got["spec"]["imagePullSecrets"] == named,
    )
    assert pod["spec"]["imagePullSecrets"] == named
    # They can't change afterwards, and nobody tries.
    namespace = admission.namespaces[0]
    elsewhere = cluster.namespace(f"{admission.label}-older")
    cluster.create(a_pod(["mysql:8.4"], "old"), options=["-n", elsewhere])
    cluster.kubectl("label", "namespace", elsewhere, f"admission={admission.label}")
    eventually(lambda: is_policed(admission, elsewhere), bool)
    cluster.kubectl("label", "pod", "old", "-n", elsewhere, "some=label")
    cluster.create(a_pod(["mysql:8.4"], "new"), options=["-n", namespace])
    cluster.kubectl("label", "pod", "new", "-n", namespace, "some=label")
    assert len(cluster.get("pod", "new", "-n", namespace)["spec"]["imagePullSecrets"]) == 2


def test_service_accounts_get_pull_secrets_when_they_come(cluster: Cluster, worker_id: str) -> None:
    """Knative, Argo and Katib ask the registry with them. Later changes are nobody's but theirs."""
    settings = values(imagePullSecrets=["mirror", "other"])
    admission = install(cluster, f"accounts-{worker_id}", settings, secrets_only=True)
    namespace = admission.namespace()
    both = [{"name": "mirror"}, {"name": "other"}]
    account: dict[str, Any] = {"apiVersion": "v1", "kind": "ServiceAccount"}
    account["metadata"] = {"name": "default-editor", "namespace": namespace}
    (made,) = cluster.create(account)
    assert made["imagePullSecrets"] == both
    assert cluster.get("serviceaccount", "default", "-n", namespace)["imagePullSecrets"] == both
    account["metadata"]["name"] = "own"
    (made,) = cluster.create({**account, "imagePullSecrets": [{"name": "own"}, {"name": "other"}]})
    assert made["imagePullSecrets"] == [{"name": "own"}, {"name": "other"}, {"name": "mirror"}]
    taken = '{"imagePullSecrets": null}'
    cluster.kubectl("patch", "serviceaccount", "own", "-n", namespace, "-p", taken)
    assert "imagePullSecrets" not in cluster.get("serviceaccount", "own", "-n", namespace)
    elsewhere = cluster.namespace(f"{admission.label}-elsewhere")
    assert "imagePullSecrets" not in cluster.get("serviceaccount", "default", "-n", elsewhere)


def test_pull_secrets_can_do_without_the_rest(cluster: Cluster, worker_id: str) -> None:
    settings = values(imagePullSecrets=["mirror"])
    admission = install(cluster, f"alone-{worker_id}", settings, secrets_only=True)
    namespace = admission.namespaces[0]
    refs = ["mysql:8.4", "nowhere.example/foreign:1"]
    template = a_pod(refs)["spec"] | {"restartPolicy": "Never"}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "trial", "namespace": namespace},
        "spec": {"template": {"spec": template}},
    }
    cluster.create(job)
    (pod,) = eventually(lambda: cluster.get("pods", "-n", namespace)["items"], bool)
    assert pod["spec"]["imagePullSecrets"] == [{"name": "mirror"}]
    assert images_of(pod) == refs


def test_a_static_pods_copy_may_name_no_secret(cluster: Cluster, worker_id: str) -> None:
    """What a kubelet shows of it: the API server refuses one that refers to Secrets."""
    settings = values(imagePullSecrets=["mirror"])
    admission = install(cluster, f"static-{worker_id}", settings, secrets_only=True)
    pod = a_pod(["mysql:8.4"])
    pod["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "sum"}
    pod["spec"] |= {"nodeName": "a", "automountServiceAccountToken": False}
    options = ["--dry-run=server", "-n", admission.namespaces[0]]
    (shown,) = cluster.create(pod, options=options)
    assert "imagePullSecrets" not in shown["spec"]


# -- other servers, larger maps -------------------------------------------------------------------


def test_the_beta_api_does_the_same(tmp_path: Path) -> None:
    """What 1.34 and 1.35 serve, where it is turned on."""
    flags = ["--runtime-config=admissionregistration.k8s.io/v1beta1=true"]
    with serve_cluster(tmp_path / "cluster", apiserver=flags) as cluster:
        admission = install(cluster, "beta", values(api="v1beta1", imagePullSecrets=["mirror"]))
        pod = admission.pod(list(NORMALISED))
        assert images_of(pod) == [mirrored(ref) for ref in NORMALISED.values()]
        assert pod["spec"]["imagePullSecrets"] == [{"name": "mirror"}]
        said = admission.refused(["foreign:1"])
        assert said == f"not in {REGISTRY}: foreign:1 (container c0){HINT}"
        admission.cluster.create(a_pod(["busybox"], "p"), options=["-n", admission.namespaces[0]])
        pod = add_ephemeral(cluster, admission.namespaces[0], "p", ["mysql:8.4"])
        assert images_of(pod, "ephemeralContainers") == [mirrored("mysql:8.4")]


def test_six_hundred_images_and_pods_with_many_containers(
    cluster: Cluster, worker_id: str, record_property: Any
) -> None:
    admission = install(cluster, f"many-{worker_id}", values(images=images(MANY)))
    assert images_of(admission.pod(MANY[:100])) == [mirrored(ref) for ref in MANY[:100]]
    by_digest = [f"{ref.rpartition(':')[0]}@{digest_of(ref)}" for ref in MANY[500:]]
    assert images_of(admission.pod(by_digest)) == [mirrored(ref) for ref in MANY[500:]]
    seconds = []
    for i in range(10):
        started = time.monotonic()
        admission.pod(MANY[i : i + 3])
        seconds.append(time.monotonic() - started)
    record_property("seconds", statistics.median(seconds))
