"""The `admission` feature through the front door: from kfdeploy.yaml to a pod's admission."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import Runner, Site, edit_workspace
from tests.support.admission import a_pod, digest_of, eventually, images_of
from tests.support.cluster import Cluster

LABEL = {"users": "of-the-set"}
MYSQL = "mysql:8.4"
OWN = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: ours, namespace: default}
data: {registry: "{{ .Values.registry }}"}
"""


@pytest.fixture(scope="module")
def root(small_site: Site, kfdeploy: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small upstream with the feature on, up to the release set."""
    root = small_site.copy(tmp_path_factory.mktemp("admission") / "ws")
    edit_workspace(
        root,
        {
            "features.admission": {
                "enabled": True,
                "namespaceSelector": {"matchLabels": LABEL},
                "allow": ["registry.team.test/tools"],
            },
            "environments": {
                "default": {"kubeVersion": "1.36.0", "imagePullSecrets": ["regcred"]},
                "older": {"kubeVersion": "1.35.2"},
                "oldest": {"kubeVersion": "1.33.0"},
            },
        },
    )
    (root / "patches" / "kfdeploy-admission").mkdir()
    (root / "patches" / "kfdeploy-admission" / "ours.yaml.gotmpl").write_text(OWN)
    for command in ("lock", "patch", "render"):
        kfdeploy(command, cwd=root)
    return root


def policies(root: Path, name: str = "default") -> Path:
    chart = root / "releases" / name / "charts" / "kfdeploy-admission"
    return chart / "charts" / "objects" / "objects.yaml"


@pytest.fixture(scope="module")
def namespace(root: Path, cluster: Cluster) -> str:
    """A user's namespace, once the API server has taken up the policies of the set."""
    cluster.kubectl("apply", "--server-side", "-f", str(policies(root)))
    name = cluster.namespace("of-the-set", LABEL)

    def active() -> bool:
        return "images.extra" in create(cluster, name, "nobody/knows:1")[1] and images_of(
            json.loads(create(cluster, name, MYSQL)[0])
        ) != [MYSQL]

    assert eventually(active, bool)
    return name


def create(cluster: Cluster, namespace: str, *refs: str) -> tuple[str, str]:
    done = cluster.kubectl(
        *("create", "--dry-run=server", "-n", namespace, "-o", "json", "-f", "-"),
        stdin=json.dumps(a_pod(refs)),
        check=False,
    )
    return done.stdout, done.stderr


def test_a_users_pod_pulls_from_the_private_registry_at_the_locks_digest(
    root: Path, small_site: Site, cluster: Cluster, namespace: str
) -> None:
    summary = json.loads((root / "releases" / "default" / "summary.json").read_text())
    wanted = {ref: image["mirror"] for ref, image in summary["images"].items()}
    covered = [ref for ref in wanted if ref not in summary["notMirrored"]]
    assert len(covered) > 20
    (pod, error) = create(cluster, namespace, *covered)
    assert not error
    assert images_of(json.loads(pod)) == [wanted[ref] for ref in covered]
    assert wanted[MYSQL].startswith(f"{small_site.private}/{small_site.prefix}/docker.io/library/")
    assert json.loads(pod)["spec"]["imagePullSecrets"] == [{"name": "regcred"}]


def test_another_image_is_refused_and_the_message_says_what_to_do(
    cluster: Cluster, namespace: str
) -> None:
    (_, error) = create(cluster, namespace, "quay.io/somebody/else:1")
    assert "quay.io/somebody/else:1" in error
    assert "images.extra in kfdeploy.yaml" in error
    (pod, _) = create(cluster, namespace, "registry.team.test/tools/jq:1")
    assert images_of(json.loads(pod)) == ["registry.team.test/tools/jq:1"]


def test_a_sites_own_objects_are_part_of_the_release(root: Path, small_site: Site) -> None:
    text = policies(root).read_text()
    assert f'data: {{registry: "{small_site.private}/{small_site.prefix}"}}' in text


def test_policies_come_before_what_they_are_for(root: Path) -> None:
    summary = json.loads((root / "releases" / "default" / "summary.json").read_text())
    assert summary["releases"][0]["name"] == "kfdeploy-admission"


@pytest.mark.parametrize(
    ("environment", "kinds"),
    [
        ("older", {"admissionregistration.k8s.io/v1beta1 MutatingAdmissionPolicy"}),
        ("oldest", {"policies.kyverno.io/v1 MutatingPolicy", "policies.kyverno.io/v1 Validating"}),
    ],
)
def test_the_environments_kubernetes_decides_whose_policies(
    root: Path, kfdeploy: Runner, environment: str, kinds: set[str]
) -> None:
    kfdeploy("render", "--env", environment, cwd=root)
    text = policies(root, environment).read_text()
    for kind in kinds:
        version, _, name = kind.partition(" ")
        assert f"apiVersion: {version}\nkind: {name}" in text
    kfdeploy("verify", environment, "--env", environment, cwd=root)


def test_verify_accepts_what_rests_on_admission_and_names_it(root: Path, kfdeploy: Runner) -> None:
    done = kfdeploy("verify", "default", "--output", "json", cwd=root)
    report: Any = done.json
    assert report["foreign"] == []
    listed = [ref for refs in report["proof"]["redirects"].values() for ref in refs]
    assert len(listed) == len(set(listed)) == report["images"]


def test_a_policy_that_names_upstream_elsewhere_is_still_found(
    root: Path, kfdeploy: Runner, tmp_path: Path
) -> None:
    """Only the policies themselves may name upstream's references."""
    copy = tmp_path / "ws"
    shutil.copytree(root, copy, symlinks=True)
    (copy / "patches" / "kfdeploy-admission" / "theirs.yaml").write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: default}\n"
        f"spec: {{containers: [{{name: x, image: {MYSQL}}}]}}\n"
    )
    kfdeploy("patch", cwd=copy)
    kfdeploy("render", cwd=copy)
    done = kfdeploy("verify", "default", "--offline", cwd=copy, check=3)
    assert f"{MYSQL} leads elsewhere" in done.stderr


def test_images_can_be_left_alone(root: Path, kfdeploy: Runner, tmp_path: Path) -> None:
    """Pull secrets reach operators' pods, and nothing else changes."""
    copy = tmp_path / "ws"
    shutil.copytree(root, copy, symlinks=True)
    edit_workspace(copy, {"features.admission.images": False})
    (copy / "patches" / "kfdeploy-admission" / "ours.yaml.gotmpl").unlink()
    for command in ("lock", "patch", "render"):
        kfdeploy(command, cwd=copy)
    assert [path.name for path in sorted((copy / "patches" / "kfdeploy-admission").iterdir())] == [
        "mutatingadmissionpolicy-kfdeploy-pull-secrets.yaml.gotmpl",
        "mutatingadmissionpolicybinding-kfdeploy-pull-secrets.yaml.gotmpl",
    ]
    yaml = YAML(typ="safe")
    policy, binding = yaml.load_all(policies(copy).read_text())
    assert (policy["kind"], binding["kind"]) == (
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
    )
    assert binding["spec"] == {"policyName": policy["metadata"]["name"]}
    scanned = kfdeploy("scan", "--format", "json", cwd=copy).json
    redirects = {found["redirect"] for image in scanned["images"] for found in image["found"]}
    assert "admission" not in redirects
    # An environment without pull secrets has no policy, and its release is empty.
    kfdeploy("render", "--env", "older", cwd=copy)
    assert policies(copy, "older").read_text() == ""
    kfdeploy("verify", "older", "--env", "older", cwd=copy)


def test_render_says_what_one_may_not_expect(root: Path, kfdeploy: Runner, tmp_path: Path) -> None:
    copy = tmp_path / "ws"
    shutil.copytree(root, copy, symlinks=True)
    edit_workspace(copy, {"environments": {"default": {"imagePullSecrets": ["regcred"]}}})
    assert (
        "note: environments.default has no kubeVersion: the admission policies are those of"
        " 1.34.0 (v1beta1), which the cluster must serve\n"
    ) in kfdeploy("render", cwd=copy).stderr
    edit_workspace(copy, {"features.admission.enabled": False})
    for command in ("lock", "patch"):
        kfdeploy(command, cwd=copy)
    assert (
        "note: environments.default.imagePullSecrets: pods that operators make in users' namespaces"
        " name them only where their service accounts do; features.admission adds them (with"
        " images: false, nothing else)\n"
    ) in kfdeploy("render", cwd=copy).stderr


def test_more_images_than_admission_can_have_are_said_before_the_cluster_does(
    root: Path, kfdeploy: Runner, tmp_path: Path
) -> None:
    copy = tmp_path / "ws"
    shutil.copytree(root, copy, symlinks=True)
    many = [
        f"registry.example.com/{'folder/' * 25}image-{i}:1@{digest_of(str(i))}" for i in range(1200)
    ]
    edit_workspace(copy, {"images.extra": many})
    kfdeploy("lock", "--offline", cwd=copy, check=None)
    said = kfdeploy("render", "--unpinned", cwd=copy, check=1).stderr
    assert re.search(
        r"^error: patches/kfdeploy-admission/mutatingadmissionpolicy-kfdeploy-images\.yaml\.gotmpl:"
        r" an expression has \d+ characters, and CEL takes 100000\n"
        r"  hint: these are more images than admission can have: leave some out by images\.needs,"
        r" images\.extra or images\.exclude$",
        said,
        re.MULTILINE,
    ), said
