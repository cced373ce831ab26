"""Programs that nobody has read, images that upstream lost, and a site's own entries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kfdeploy.oci.reference import host_qualified_path
from tests.conftest import Runner, Served, edit_workspace
from tests.support.registries import free_port
from tests.support.standins import push_standins
from tests.support.workspaces import deployment, workspace

LOST = "us-central1-docker.pkg.dev/k8s-staging-images/jobset/jobset:v0.10.1"
KATIB = "ghcr.io/kubeflow/katib/katib-controller:v0.99.0"
OPERATOR = "ghcr.io/acme/operator:v1.2.0"
OWN = """\
component: acme-operator
programs: ["ghcr.io/acme/operator"]
read:
- {versions: 1.2.0, source: acme/operator@v1.2.0}
images:
- ref: busybox:1.36
  need: required
  when: each job waits in an init container
  source: acme/operator@v1.2.0:pkg/config.go:7
  redirect: {kind: Deployment, name: operator, container: main, env: WAIT_IMAGE}
- ref: docker.io/acme/report
  need: optional
  when: a report is asked for
  source: acme/operator@v1.2.0:pkg/config.go:8
"""


@pytest.fixture
def site(tmp_path: Path, kfdeploy: Runner) -> Path:
    images = {"operator": OPERATOR, "katib-controller": KATIB, "jobset": LOST}
    objects = "".join(deployment(name, image) for name, image in images.items())
    return workspace(tmp_path, kfdeploy, objects)


def notes(kfdeploy: Runner, site: Path) -> str:
    return kfdeploy("scan", "--quiet", cwd=site).stderr


def test_what_nobody_has_read_is_said_with_how_to_look(site: Path, kfdeploy: Runner) -> None:
    said = notes(kfdeploy, site)
    assert (
        "note: a program that the catalogue does not know; it may pull images that no manifest"
        f" names\n  runs as: one: Deployment n/operator ({OPERATOR})\n"
        f"  to search: kfdeploy scan --image-content --image {OPERATOR}\n"
    ) in said
    assert "note: nobody has reviewed katib 0.99.0 for hidden images; known for 0.19.0: " in said
    assert f"  to search: kfdeploy scan --image-content --image {KATIB}\n" in said
    listed = kfdeploy("scan", "--output", "json", cwd=site).json["unknown"]
    assert [(each["image"], each["entry"], each["nearest"]["version"]) for each in listed] == [
        (KATIB, "katib", "0.19.0"),
        (OPERATOR, "", ""),
    ]


def test_a_lost_image_is_named_with_a_substitute_to_confirm(site: Path, kfdeploy: Runner) -> None:
    confirm = (
        f"to use it, add to images.substitutes of kfdeploy.yaml: {{{LOST}:"
        " registry.k8s.io/jobset/jobset:v0.10.1}\n"
    )
    said = notes(kfdeploy, site)
    assert f"note: {LOST}: " in said
    assert f"  {confirm}" in said
    edit_workspace(site, {"registries.sources": {"*": nobody()}})
    locked = kfdeploy("lock", cwd=site, check=1)
    assert f"  hint: {confirm}" in locked.stderr
    edit_workspace(site, {"images.substitutes": {LOST: "registry.k8s.io/jobset/jobset:v0.10.1"}})
    assert LOST not in notes(kfdeploy, site)


def test_a_substitute_of_an_image_that_nothing_names_is_said(site: Path, kfdeploy: Runner) -> None:
    typo = LOST.replace(":v0.10.1", ":v0.10.0")
    setting = {typo: "registry.k8s.io/jobset/jobset:v0.10.1"}
    edit_workspace(site, {"images.substitutes": setting, "registries.sources": {"*": nobody()}})
    said = (
        f"note: kfdeploy.yaml: images.substitutes['{typo}']: no component names this image;"
        f" similar: {LOST}\n"
    )
    assert said in notes(kfdeploy, site)
    assert said in kfdeploy("lock", "--quiet", cwd=site, check=1).stderr


def test_a_substitute_may_be_spelled_otherwise_than_the_image(
    tmp_path: Path, kfdeploy: Runner
) -> None:
    image = "docker.io/bitnami/kubectl:1.30.4"
    site = workspace(tmp_path, kfdeploy, deployment("k", image))
    assert f"note: {image}: Bitnami took" in notes(kfdeploy, site)
    setting = {"bitnami/kubectl:1.30.4": "docker.io/bitnamilegacy/kubectl:1.30.4"}
    edit_workspace(site, {"images.substitutes": setting})
    assert "note:" not in notes(kfdeploy, site)


def test_a_lost_image_goes_its_whole_way_by_its_substitute(
    tmp_path: Path, kfdeploy: Runner, registries: Served
) -> None:
    """What is copied is the substitute; all names are those of the image that is gone."""
    site = workspace(tmp_path, kfdeploy, deployment("jobset", LOST))
    instead = "registry.k8s.io/jobset/jobset:v0.10.1"
    # Below a path of its own: elsewhere in it other tests' images are, that image among them.
    push_standins(
        registries.public, [instead], path_of=lambda ref: f"lost/{host_qualified_path(ref)}"
    )
    settings = {
        "registries.private": {"host": registries.private, "prefix": "lost", "plainHttp": True},
        "registries.sources": {"*": f"{registries.public}/lost"},
        "registries.hosts": {registries.public: {"plainHttp": True}},
    }
    edit_workspace(site, settings)
    said = kfdeploy("lock", "--quiet", cwd=site, check=1).stderr
    assert f"error: {LOST}: not found: " in said
    hint = f"to use it, add to images.substitutes of kfdeploy.yaml: {{{LOST}: {instead}}}"
    assert f"  hint: {hint}" in said
    edit_workspace(site, {"images.substitutes": {LOST: instead}})
    for command in ("lock", "mirror", "patch", "render"):
        kfdeploy(command, "--quiet", cwd=site)
    lock = (site / "images.lock").read_text()
    assert "- image: registry.k8s.io/jobset/jobset@sha256:" in lock
    assert f"kbld.carvel.dev/id: {LOST}\n" in lock
    name, _, tag = LOST.rpartition(":")
    text = (site / "releases/default/charts/one/charts/objects/objects.yaml").read_text()
    assert f"image: {registries.private}/lost/{name}:{tag}@sha256:" in text
    kfdeploy("verify", "--quiet", cwd=site)


def nobody() -> str:
    return f"127.0.0.1:{free_port()}"


def test_a_sites_own_entry_is_scanned_and_patched(site: Path, kfdeploy: Runner) -> None:
    (site / "catalogue").mkdir()
    (site / "catalogue" / "acme.yaml").write_text(OWN)
    assert OPERATOR not in notes(kfdeploy, site)
    images: dict[str, Any] = {
        image["ref"]: image
        for image in kfdeploy("scan", "--output", "json", cwd=site).json["images"]
    }
    (found,) = images["busybox:1.36"]["found"]
    assert (found["how"], found["redirect"]) == ("catalogue", "env WAIT_IMAGE")
    kfdeploy("patch", cwd=site)
    patch = (site / "patches" / "one" / "deployment-operator.env.yaml.gotmpl").read_text()
    assert '[{name: WAIT_IMAGE, value: "{{ (index .Values.images "busybox:1.36").ref }}"}]' in patch


def test_the_proof_says_which_programs_nobody_has_read(site: Path, kfdeploy: Runner) -> None:
    edit_workspace(site, {"images.exclude": [{"ref": LOST, "reason": "gone"}]})
    locked = kfdeploy("lock", "--offline", cwd=site, check=1).stderr
    assert (
        "note: nobody has reviewed 2 programs at these versions for hidden images: `kfdeploy scan`"
        in locked
    )
    kfdeploy("patch", cwd=site)

    def verified() -> tuple[str, str]:
        kfdeploy("render", "--unpinned", cwd=site)
        done = kfdeploy("verify", "--offline", cwd=site)
        return done.stdout, done.stderr

    said, noted = verified()
    assert "  programs not read for images that their code names: 2 (see the notes)\n" in said
    assert said.endswith("can be pulled from outside; see what was not read\n")
    for program in (OPERATOR, f"katib 0.99.0 ({KATIB})"):
        assert f"note: {program}: nobody has looked for images that its code names;" in noted
    (site / "catalogue").mkdir()
    (site / "catalogue" / "acme.yaml").write_text(OWN.replace("optional", "user-choice"))
    (site / "catalogue" / "katib.yaml").write_text(
        "component: katib\nprograms: ['*/kubeflow/katib/*']\n"
        "read: [{versions: 0.99.0, source: acme/katib@v0.99.0}]\n"
    )
    kfdeploy("lock", "--offline", cwd=site, check=1)
    kfdeploy("patch", cwd=site)
    said, noted = verified()
    assert said.endswith("  nothing else in the set can be pulled from outside\n")
    assert "nobody has looked" not in noted


def test_verify_names_what_nothing_redirects_until_somebody_decides(
    site: Path, kfdeploy: Runner
) -> None:
    (site / "catalogue").mkdir()
    (site / "catalogue" / "acme.yaml").write_text(OWN)
    edit_workspace(site, {"images.exclude": [{"ref": LOST, "reason": "gone"}]})
    kfdeploy("lock", "--offline", cwd=site, check=1)

    def verified(check: int) -> Any:
        kfdeploy("patch", cwd=site)
        kfdeploy("render", "--unpinned", cwd=site)
        return kfdeploy("verify", "--offline", cwd=site, check=check)

    assert "docker.io/acme/report: nothing leads it to the private registry" in verified(3).stderr
    edit_workspace(site, {"registries.uncovered": ["docker.io/acme/report"]})
    assert (
        "     1 by a node's registry mirror\n         docker.io/acme/report\n" in verified(0).stdout
    )
    edit_workspace(site, {"registries.uncovered": [], "features.admission": {"enabled": True}})
    kfdeploy("lock", "--offline", cwd=site, check=1)
    said = verified(0).stdout
    assert "     1 by admission\n         docker.io/acme/report\n" in said
    assert "  nothing else that the set names can be pulled from outside; see what" in said
    folder = site / "patches" / "kfdeploy-admission"
    (folder / "ours.yaml").write_text("kind: [\n")
    broken = kfdeploy("render", "--unpinned", "--quiet", cwd=site, check=1).stderr
    assert broken.startswith("error: patches/kfdeploy-admission/ours.yaml:")
    (folder / "ours.yaml").unlink()
    (folder / "mutatingadmissionpolicybinding-kfdeploy-images.yaml.gotmpl").unlink()
    kfdeploy("render", "--unpinned", cwd=site)
    unbound = kfdeploy("verify", "--offline", cwd=site, check=3).stderr
    assert "the set has no MutatingAdmissionPolicyBinding of kfdeploy-images: run" in unbound
    edit_workspace(site, {"environments.default.imagePullSecrets": ["regcred"]})
    kfdeploy("render", "--unpinned", cwd=site)  # another binding of that kind is no help
    unbound = kfdeploy("verify", "--offline", cwd=site, check=3).stderr
    assert "the set has no MutatingAdmissionPolicyBinding of kfdeploy-images: run" in unbound
    edit_workspace(site, {"environments.default": {}})
    policy = folder / "mutatingadmissionpolicy-kfdeploy-images.yaml.gotmpl"
    policy.write_text(policy.read_text().replace(".Values.images", ".Values.none"))
    kfdeploy("render", "--unpinned", cwd=site, check=1)
    policy.unlink()
    kfdeploy("render", "--unpinned", cwd=site)
    said = kfdeploy("verify", "--offline", cwd=site, check=3).stderr
    assert (
        "error: docker.io/acme/report rests on admission, and the set has no"
        " MutatingAdmissionPolicy: run `kfdeploy patch` and `kfdeploy render`\n"
    ) in said


def test_what_a_program_copies_itself_rests_on_nothing(site: Path, kfdeploy: Runner) -> None:
    (site / "catalogue").mkdir()
    (site / "catalogue" / "acme.yaml").write_text(OWN + "  pulled_by: program\n")
    gone = {"images.exclude": [{"ref": LOST, "reason": "gone"}]}
    edit_workspace(site, {**gone, "features.admission": {"enabled": True}})
    kfdeploy("lock", "--offline", cwd=site, check=1)
    kfdeploy("patch", cwd=site)
    kfdeploy("render", "--unpinned", cwd=site)
    refused = kfdeploy("verify", "--offline", cwd=site, check=3)
    assert (
        "error: docker.io/acme/report: a program copies it itself, from where its code says, and"
        " neither admission nor a node's mirror leads it; accept by registries.uncovered that this"
        " fails\n"
    ) in refused.stderr
    edit_workspace(site, {"registries.uncovered": ["docker.io/acme/report"]})
    accepted = kfdeploy("verify", "--offline", cwd=site)
    proof = "     1 by nothing: a program copies them itself, past the nodes\n"
    assert f"{proof}         docker.io/acme/report\n" in accepted.stdout
    assert proof in refused.stdout


def test_why_says_what_pulls_it_where_that_was_read_and_what_a_patch_adds(
    site: Path, kfdeploy: Runner
) -> None:
    (site / "catalogue").mkdir()
    (site / "catalogue" / "acme.yaml").write_text(OWN)
    assert kfdeploy("why", "busybox:1.36", "--quiet", cwd=site).stdout == (
        "busybox:1.36 (required)\n"
        "  one: Deployment n/operator\n"
        "    required: each job waits in an init container\n"
        "    read in acme/operator@v1.2.0:pkg/config.go:7\n"
        "    catalogue, redirected by: env WAIT_IMAGE of container main of Deployment operator,"
        " which a patch adds\n"
    )


DIGEST = "sha256:" + "d" * 64


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ("python:3.11", ["python:3.11"]),
        ("index.docker.io/library/python:3.11", ["python:3.11"]),
        ("python", ["python:3.11", "python:3.12"]),
        ("docker.io/library/python", ["python:3.11", "python:3.12"]),
        ("registry.example.com/kf/docker.io/library/python:3.11", ["python:3.11"]),
        (
            f"registry.example.com/kf/docker.io/library/python:3.11@sha256:{'a' * 64}",
            ["python:3.11"],
        ),
        ("registry.example.com/kf/docker.io/library/python", ["python:3.11", "python:3.12"]),
        (DIGEST, [f"quay.io/acme/pinned@{DIGEST}"]),
        (f"quay.io/acme/pinned@{DIGEST}", [f"quay.io/acme/pinned@{DIGEST}"]),
        ("registry.k8s.io/jobset/jobset:v0.10.1", [LOST]),
        ("jobset", [LOST]),
    ],
)
def test_why_finds_an_image_by_any_of_its_names(
    wanted: str, named: list[str], whyable: Path, kfdeploy: Runner
) -> None:
    answer = kfdeploy("why", wanted, "--output", "json", cwd=whyable).json
    assert [image["ref"] for image in answer["images"]] == named


@pytest.fixture(scope="module")
def whyable(tmp_path_factory: pytest.TempPathFactory, kfdeploy: Runner) -> Path:
    images = {
        "one": "python:3.11",
        "two": "python:3.12",
        "pinned": f"quay.io/acme/pinned@{DIGEST}",
        "jobset": LOST,
    }
    objects = "".join(deployment(name, image) for name, image in images.items())
    site = workspace(tmp_path_factory.mktemp("why"), kfdeploy, objects)
    private = {"host": "registry.example.com", "prefix": "kf"}
    instead = {LOST: "registry.k8s.io/jobset/jobset:v0.10.1"}
    edit_workspace(site, {"registries.private": private, "images.substitutes": instead})
    kfdeploy("lock", "--offline", cwd=site, check=1)
    return site


@pytest.mark.parametrize(
    ("wanted", "near"),
    [
        ("python:3.10", "similar: python:3.11, python:3.12"),
        ("pyhton:3.12", "similar: python:3.12, python:3.11"),
        ("docker.io/acme/pined", f"similar: quay.io/acme/pinned@{DIGEST}"),
        ("sha256:" + "0" * 64, "`kfdeploy scan --format refs` lists the images"),
        ("nothing/like:it", "`kfdeploy scan --format refs` lists the images"),
    ],
)
def test_why_offers_what_looks_like_an_image_that_nothing_names(
    wanted: str, near: str, whyable: Path, kfdeploy: Runner
) -> None:
    said = kfdeploy("why", wanted, "--quiet", cwd=whyable, check=1).stderr
    assert said == f"error: {wanted}: nothing in this workspace names it\n  hint: {near}\n"


def test_why_says_what_takes_an_images_place(whyable: Path, kfdeploy: Runner) -> None:
    said = kfdeploy("why", LOST, cwd=whyable).stdout
    assert said.startswith(
        f"{LOST} (required)\n  replaced by registry.k8s.io/jobset/jobset:v0.10.1:"
        " images.substitutes of kfdeploy.yaml\n  one: Deployment n/jobset\n"
    )


def test_why_says_that_an_image_is_gone(tmp_path: Path, kfdeploy: Runner) -> None:
    site = workspace(tmp_path, kfdeploy, deployment("jobset", LOST))
    lines = kfdeploy("why", "jobset", cwd=site).stdout.splitlines()
    assert lines[1].startswith("  no longer at its source: a staging registry")
    assert lines[2].startswith(
        "  to use it, add to images.substitutes of kfdeploy.yaml: {us-central1"
    )


def test_two_patches_that_would_begin_the_same_list_are_an_error(
    site: Path, kfdeploy: Runner
) -> None:
    asks = (
        "asks:\n- {kind: Deployment, name: operator, container: main, what: tags,"
        " ca: env SSL_CERT_DIR, source: 'acme/operator@v1.2.0:pkg/ask.go:1'}\n"
    )
    file = "file: /etc/list.json, content: '{}'"
    (site / "catalogue").mkdir()
    (site / "catalogue" / "acme.yaml").write_text(OWN.replace("env: WAIT_IMAGE", file) + asks)
    edit_workspace(site, {"registries.private.ca": "ca.pem"})
    assert kfdeploy("patch", "--quiet", cwd=site, check=1).stderr == (
        "error: component one: Deployment n/operator has no volumes, and 2 patches would begin its"
        " list: file, ca\n  hint: take one of them out of catalogue/ and make it a patch of your"
        " own\n"
    )


def test_egress_and_a_look_into_images_are_two_commands(site: Path, kfdeploy: Runner) -> None:
    for other in (("--image-content",), ("--source", ".")):
        said = kfdeploy("scan", "--egress", *other, cwd=site, check=2).stderr
        assert said.startswith("error: --egress lists what the manifests and the catalogue say")
