"""A workspace at another release, in place: `init --upgrade`, `vendor --upgrade`, and back."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.files import write_all
from kfdeploy.images import lockfile
from kfdeploy.workspace.settings_file import UNFINISHED
from tests.conftest import Runner, Served, Site, edit_workspace, need_programs, tree
from tests.support.standins import make_standin, push_standins
from tests.support.workspaces import deployment

HEAD = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
CRD = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: things.example.com
"""
OLD = {
    "web": ("apps/web/base", deployment("web", "example.com/up/web:1") + "        args: [--a]\n"),
    "jobs": ("apps/jobs/upstream", deployment("jobs", "example.com/up/jobs:1") + f"---\n{CRD}"),
    "both": ("apps/both", deployment("both", "example.com/up/both:1")),
}
NEW = {
    "web": (
        "applications/web/overlays/x",
        deployment("web", "example.com/up/web:2").replace("name: main", "name: server")
        + "        args: [--b]\n",
    ),
    "fresh": ("applications/fresh", deployment("fresh", "example.com/up/fresh:1")),
    "both": ("apps/both", deployment("both", "example.com/up/both:1")),
}
REFS = [f"example.com/up/{name}" for name in ("web:1", "web:2", "jobs:1", "both:1", "fresh:1")]
MERGE = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: n}
spec:
  template:
    spec:
      containers:
      - name: main
        imagePullPolicy: Never
"""
ARGUMENT = """\
target: {group: apps, version: v1, kind: Deployment, namespace: n, name: web}
patch:
- {op: replace, path: /spec/template/spec/containers/0/args/0, value: --mine}
"""
JOBS = ARGUMENT.replace("name: web", "name: jobs").replace("args/0", "image")


def upstream(folder: Path, components: Mapping[str, tuple[str, str]]) -> Path:
    """An upstream whose example lists these."""
    files = {}
    for path, text in components.values():
        files[f"{path}/objects.yaml"] = text
        files[f"{path}/kustomization.yaml"] = f"{HEAD}resources: [objects.yaml]\n"
    listed = "".join(f"- ../{path}\n" for path, _ in components.values())
    files["example/kustomization.yaml"] = f"{HEAD}resources:\n{listed}"
    write_all(folder, files)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, kfdeploy: Runner, registries: Served) -> Path:
    """A folder with `site`, which each test has a copy of."""
    need_programs("kustomize")
    folder = tmp_path_factory.mktemp("upgrade")
    upstream(folder / "up-1.0", OLD)
    upstream(folder / "up-2.0", NEW)
    push_standins(registries.public, REFS)
    root = folder / "ws"
    source = ("--upstream", folder / "up-1.0", "--ref", "1.0")
    kfdeploy("init", root, *source, "--registry", f"{registries.private}/upgrade")
    edit_workspace(root, {"registries.sources": {"*": registries.public}})
    for command in ("vendor", "lock", "patch"):
        kfdeploy(command, "-q", cwd=root)
    return folder


@pytest.fixture
def site(made: Path, tmp_path: Path) -> Path:
    """A workspace at ``up-1.0``, locked and patched, with ``up-2.0`` beside its upstream."""
    shutil.copytree(made, tmp_path / "site")
    return tmp_path / "site" / "ws"


def content(root: Path) -> dict[str, bytes]:
    return tree(root)


def up(site: Path, kfdeploy: Runner, *more: str, check: int = 0) -> Any:
    options = ("--upgrade", "--upstream", site.parent / "up-2.0", "--ref", "2.0", "-q")
    return kfdeploy("vendor", *options, "--output", "json", *more, cwd=site, check=check).json


def back(site: Path, kfdeploy: Runner, check: int = 0) -> Any:
    options = ("--upgrade", "--upstream", site.parent / "up-1.0", "--ref", "1.0", "-q")
    return kfdeploy("vendor", *options, "--output", "json", cwd=site, check=check).json


def test_there_and_back_gives_the_same_bytes(site: Path, kfdeploy: Runner) -> None:
    (site / "patches/both/mine.yaml").write_text(MERGE.replace("NAME", "both"))
    kfdeploy("patch", cwd=site)
    before = content(site)
    there = up(site, kfdeploy)
    assert [(c["name"], c["state"]) for c in there["components"]] == [
        ("web", "moved"),
        ("jobs", "dropped"),
        ("both", "same"),
        ("fresh", "new"),
    ]
    text = (site / "kfdeploy.yaml").read_text()
    assert "source: ../up-2.0\n" in text.replace('"', "")
    assert '  ref: "2.0"\n' in text
    assert text.splitlines()[10:22].count("- name: jobs") == 0
    # What follows from it is there too: nothing is left to do.
    for command in ("vendor", "lock", "patch"):
        kfdeploy(command, "--check", "-q", cwd=site)
    again = content(site)
    assert up(site, kfdeploy)["changed"] is False
    assert content(site) == again
    back(site, kfdeploy)
    assert content(site) == before


def test_init_and_vendor_do_the_same(site: Path, kfdeploy: Runner) -> None:
    other = site.with_name("other")
    shutil.copytree(site, other)
    said = up(site, kfdeploy)
    options = ("--upgrade", "--upstream", site.parent / "up-2.0", "--ref", "2.0", "-q")
    assert kfdeploy("init", other, *options, "--output", "json").json == said
    assert content(other) == content(site)


def test_check_says_all_of_it_and_writes_nothing(site: Path, kfdeploy: Runner) -> None:
    before = content(site)
    said = up(site, kfdeploy, "--check", check=3)
    assert content(site) == before
    assert {path.name for path in (site / ".kfdeploy").iterdir()} == {"cache", "upgrade.lock"}
    assert up(site, kfdeploy) == said


def test_images_and_bytes_to_carry(site: Path, kfdeploy: Runner) -> None:
    said = up(site, kfdeploy)
    images = said["images"]
    assert [image["ref"] for image in images["new"]] == [REFS[4], REFS[1]]
    assert [image["ref"] for image in images["dropped"]] == [REFS[2], REFS[0]]
    assert images["retagged"] == [
        {"repository": "example.com/up/web", "before": [REFS[0]], "now": [REFS[1]]}
    ]
    had = {digest for ref in (REFS[0], REFS[2], REFS[3]) for digest in make_standin(ref).blobs}
    new = {d: len(b) for ref in (REFS[1], REFS[4]) for d, b in make_standin(ref).blobs.items()}
    assert said["carry"] == {
        "images": 2,
        "bytes": sum(size for digest, size in new.items() if digest not in had),
        "atMost": False,
        "sizeUnknown": [],
        "notLocked": [],
    }


def test_without_a_registry_what_is_known_stays_locked(site: Path, kfdeploy: Runner) -> None:
    locked = (site / "images.lock").read_text()
    edit_workspace(site, {"registries.sources": {"*": "127.0.0.1:1"}})
    said = up(site, kfdeploy, "--offline")
    assert said["lock"]["known"] == 1
    assert [failure["ref"] for failure in said["lock"]["failures"]] == [REFS[4], REFS[1]]
    assert said["carry"]["notLocked"] == [REFS[4], REFS[1]]
    # A release set of the release before still has its digests.
    set_ = site / "releases/v1/images.lock"
    set_.parent.mkdir(parents=True)
    set_.write_text(locked)
    options = ("--upgrade", "--upstream", site.parent / "up-1.0", "--ref", "1.0", "--offline")
    kfdeploy("vendor", *options, cwd=site)
    assert (site / "images.lock").read_text() == locked


def test_images_that_can_t_be_asked_for_fail_and_the_rest_is_written(
    site: Path, kfdeploy: Runner
) -> None:
    edit_workspace(site, {"registries.sources": {"*": "127.0.0.1:1"}})
    said = up(site, kfdeploy, check=1)
    assert len(said["lock"]["failures"]) == 2
    assert 'ref: "2.0"' in (site / "kfdeploy.yaml").read_text()


def test_what_a_dropped_component_leaves(site: Path, kfdeploy: Runner) -> None:
    assert up(site, kfdeploy)["leftBehind"] == [
        {
            "component": "jobs",
            "objects": 2,
            "stays": ["CustomResourceDefinition things.example.com"],
            "elsewhere": [],
        }
    ]


def test_people_s_patches_are_tried_and_left(site: Path, kfdeploy: Runner) -> None:
    mine = {
        "patches/web/argument.yaml": ARGUMENT,
        "patches/web/container.yaml": MERGE.replace("NAME", "web"),
        "patches/web/image.yaml.gotmpl": ARGUMENT.replace(
            "--mine", '{{ (index .Values.images "example.com/up/web:1").ref }}'
        ),
        "patches/both/holds.yaml": MERGE.replace("NAME", "both"),
        "patches/jobs/gone.yaml": JOBS,
    }
    for name, text in mine.items():
        (site / name).write_text(text)
    kfdeploy("patch", "-q", cwd=site)
    said = up(site, kfdeploy, check=3)
    trials = {trial["file"]: trial for trial in said["patches"]["own"]}
    assert {name: trial["state"] for name, trial in trials.items()} == {
        "patches/both/holds.yaml": "holds",
        "patches/jobs/gone.yaml": "unused",
        "patches/web/argument.yaml": "look",
        "patches/web/container.yaml": "misfit",
        "patches/web/image.yaml.gotmpl": "misfit",
    }
    assert trials["patches/web/argument.yaml"]["notes"] == [
        {
            "object": "Deployment n/web",
            "field": "/spec/template/spec/containers/0/args/0",
            "what": "container 0 was 'main', is 'server'",
            "near": [],
        }
    ]
    assert trials["patches/web/container.yaml"]["notes"] == [
        {
            "object": "Deployment n/web",
            "field": "spec.template.spec.containers",
            "what": "spec.template.spec.containers: there is no container main; it would be added",
            "near": ["containers: server"],
        }
    ]
    (note,) = trials["patches/jobs/gone.yaml"]["notes"]
    assert note["what"] == "kfdeploy.yaml no longer lists a component jobs"
    assert "example.com/up/web:1" in trials["patches/web/image.yaml.gotmpl"]["notes"][0]["what"]
    assert said["needsPerson"] == ["patches/web/container.yaml", "patches/web/image.yaml.gotmpl"]
    for name, text in mine.items():
        assert (site / name).read_text() == text


def test_an_edited_generated_patch_is_left_and_judged(site: Path, kfdeploy: Runner) -> None:
    edited = {
        name: (site / name).read_text() + "# mine\n"
        for name in (
            "patches/web/deployment-web.images.yaml.gotmpl",
            "patches/jobs/deployment-jobs.images.yaml.gotmpl",
            "patches/both/deployment-both.images.yaml.gotmpl",
        )
    }
    for name, text in edited.items():
        (site / name).write_text(text)
    said = up(site, kfdeploy, check=3)
    assert [(t["file"], t["generated"], t["state"]) for t in said["patches"]["edited"]] == [
        ("patches/both/deployment-both.images.yaml.gotmpl", "same", "holds"),
        ("patches/jobs/deployment-jobs.images.yaml.gotmpl", "gone", "unused"),
        ("patches/web/deployment-web.images.yaml.gotmpl", "changed", "misfit"),
    ]
    assert said["needsPerson"] == [
        "patches/jobs/deployment-jobs.images.yaml.gotmpl",
        "patches/web/deployment-web.images.yaml.gotmpl",
    ]
    for name, text in edited.items():
        assert (site / name).read_text() == text


def test_settings_that_name_nothing_any_more_are_said(site: Path, kfdeploy: Runner) -> None:
    edit_workspace(
        site,
        {
            "images.substitutes": {REFS[0]: REFS[0], "example.com/never:1": REFS[0]},
            "images.exclude": [{"ref": "example.com/up/jobs:*", "reason": "none here"}],
        },
    )
    assert up(site, kfdeploy)["settings"] == [
        {
            "key": f"images.substitutes['{REFS[0]}']",
            "value": REFS[0],
            "wasUsed": True,
            "near": [REFS[1]],
        },
        {
            "key": "images.substitutes['example.com/never:1']",
            "value": "example.com/never:1",
            "wasUsed": False,
            "near": [],
        },
        {"key": "images.exclude[0]", "value": "example.com/up/jobs:*", "wasUsed": True, "near": []},
    ]


def test_programs_that_nobody_has_looked_into_are_the_new_ones(
    site: Path, kfdeploy: Runner
) -> None:
    kserve = deployment("kserve-controller-manager", "kserve/kserve-controller:v0.99.0")
    upstream(site.parent / "up-2.0", {**NEW, "kserve": ("applications/kserve", kserve)})
    said = up(site, kfdeploy, "--offline")
    assert sorted(one["image"] for one in said["catalogue"]["notRead"]) == [
        "example.com/up/fresh:1",
        "example.com/up/web:2",
        "kserve/kserve-controller:v0.99.0",
    ]


def test_the_text_says_what_to_do(site: Path, kfdeploy: Runner) -> None:
    (site / "patches/web/container.yaml").write_text(MERGE.replace("NAME", "web"))
    options = ("--upgrade", "--upstream", "../up-2.0", "--ref", "2.0", "-q")
    before = content(site)
    checked = kfdeploy("vendor", *options, "--check", cwd=site, check=3)
    assert checked.stdout.startswith(
        "1.0 to 2.0\n"
        "patches that must be adapted:\n"
        "  patches/web/container.yaml no longer matches\n"
        "    Deployment n/web: spec.template.spec.containers: there is no container main; it would"
        " be added; similar: containers: server\n"
        "components:\n"
        "  1 component as before\n"
        "  moved: web: apps/web/base to applications/web/overlays/x\n"
        "  dropped: jobs: the example of 2.0 does not list it\n"
        "    in the cluster 2 objects that nothing renders now; kept:"
        " CustomResourceDefinition things.example.com\n"
        "  new: fresh: applications/fresh\n"
    )
    assert checked.stdout.endswith(" removed; nothing is written\n")
    assert content(site) == before
    done = kfdeploy("vendor", *options, cwd=site, check=3)
    assert done.stderr == "error: patches/web/container.yaml: must be adapted\n"
    assert done.stdout.endswith(
        "next: adapt the patches that no longer match, then run kfdeploy render\n"
    )
    marked = kfdeploy("vendor", *options, "--output", "markdown", cwd=site, check=3).stdout
    assert marked.startswith("# 2.0, as before\n\nFiles: 0 new, 0 changed, 0 removed; in upstream/")
    assert "- `patches/web/container.yaml` no longer matches\n  - Deployment n/web: " in marked


def test_a_git_upstream_needs_only_the_ref(site: Path, kfdeploy: Runner) -> None:
    repository = site.parent / "repo"
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-C", repository)
    subprocess.run(["git", "init", "-q", repository], check=True)
    for version, components in (("v1", OLD), ("v2", NEW)):
        for path in repository.iterdir():
            if path.name != ".git":
                shutil.rmtree(path)
        upstream(repository, components)
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-qm", version], check=True)
        subprocess.run([*git, "tag", version], check=True)
    url = f"file://{repository}"
    edit_workspace(site, {"upstream": {"source": url, "ref": "v1"}})
    kfdeploy("vendor", "-q", cwd=site)
    said = kfdeploy("vendor", "--upgrade", "--ref", "v2", "-q", "--output", "json", cwd=site).json
    assert said["from"] == {"version": "v1", "source": url, "ref": "v1"}
    assert said["to"] == {"version": "v2", "source": url, "ref": "v2"}
    assert (site / "upstream/applications/fresh").is_dir()


def test_a_source_that_is_absolute_stays_so(site: Path, kfdeploy: Runner) -> None:
    edit_workspace(site, {"upstream.source": str(site.parent / "up-1.0")})
    before = (site / "kfdeploy.yaml").read_bytes()
    up(site, kfdeploy)
    assert f'source: "{site.parent / "up-2.0"}"\n' in (site / "kfdeploy.yaml").read_text()
    back(site, kfdeploy)
    assert (site / "kfdeploy.yaml").read_bytes() == before


def test_a_person_s_component_with_values_goes_along(site: Path, kfdeploy: Runner) -> None:
    need_programs("helm")
    chart = {
        "charts/c/Chart.yaml": "apiVersion: v2\nname: c\nversion: 1.0.0\n",
        "charts/c/templates/c.yaml": "apiVersion: v1\nkind: ConfigMap\n"
        "metadata: {name: c, namespace: n}\ndata: {size: {{ .Values.size | quote }}}\n",
    }
    for version in ("up-1.0", "up-2.0"):
        write_all(site.parent / version, chart)
    (site / "values").mkdir()
    (site / "values/c.yaml").write_text("size: 7\n")
    text = (site / "kfdeploy.yaml").read_text()
    mine = "- name: c # mine\n  path: charts/c\n  values: [values/c.yaml]\n"
    text = text.replace("- name: both\n", f"{mine}- name: both\n")
    (site / "kfdeploy.yaml").write_text(text)
    for command in ("vendor", "patch"):
        kfdeploy(command, "-q", cwd=site)
    before = content(site)
    up(site, kfdeploy)
    assert mine in (site / "kfdeploy.yaml").read_text()
    assert "values/c.yaml" in (site / "helmfile.yaml.gotmpl").read_text()
    kfdeploy("patch", "--check", cwd=site)
    back(site, kfdeploy)
    assert content(site) == before


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (
            ("vendor", "--upgrade"),
            2,
            (
                "error: --upgrade needs the other release\n"
                "  hint: name it by --ref; and by --upstream, where it is another folder, tarball"
                " or URL\n"
            ),
        ),
        (
            ("vendor", "--ref", "2.0"),
            2,
            (
                "error: --upstream, --ref and --remotes go with --upgrade\n"
                "  hint: kfdeploy.yaml says what is vendored; add --upgrade to move to another"
                " release\n"
            ),
        ),
        (
            ("vendor", "--upgrade", "--ref", "2.0"),
            2,
            (
                "error: --ref 2.0: upstream.source is SOURCE, which has one release only\n"
                "  hint: name the folder, tarball or git URL of the other release by --upstream\n"
            ),
        ),
        (
            ("vendor", "--upgrade", "--upstream", "../nowhere"),
            2,
            (
                "error: ../nowhere: no such folder or tarball\n"
                "  hint: --upstream takes a folder, a tarball or a git URL\n"
            ),
        ),
        (
            ("init", "--upgrade", "--upstream", "../up-2.0", "--registry", "r.test:1"),
            2,
            (
                "error: --upgrade leaves the registry and the features as kfdeploy.yaml has them\n"
                "  hint: edit kfdeploy.yaml to change them\n"
            ),
        ),
        (("vendor", "--offline"), 2, "error: --offline goes with --upgrade\n"),
        (
            ("init", "--upgrade", "--upstream", "../up-2.0", "../none"),
            1,
            (
                "error: no kfdeploy.yaml in ../none\n"
                "  hint: `kfdeploy init DIR --upstream ...` makes a workspace; -C DIR names another"
                " one\n"
            ),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_use_is_said(
    command: tuple[str, ...], code: int, said: str, site: Path, kfdeploy: Runner
) -> None:
    before = content(site)
    done = kfdeploy(*command, "-q", cwd=site, check=code)
    assert done.stderr == said.replace("SOURCE", "../up-1.0")
    assert content(site) == before


def test_a_component_that_is_nowhere_stops_it(site: Path, kfdeploy: Runner) -> None:
    path = "apps/web/overlays/mine"
    write_all(
        site.parent / "up-1.0",
        {f"{path}/kustomization.yaml": f"{HEAD}resources: [../../base]\n"},
    )
    text = (site / "kfdeploy.yaml").read_text()
    (site / "kfdeploy.yaml").write_text(text.replace("apps/web/base", path))
    kfdeploy("vendor", "-q", cwd=site)
    before = content(site)
    options = ("--upgrade", "--upstream", "../up-2.0", "-q")
    assert kfdeploy("vendor", *options, cwd=site, check=1).stderr == (
        f"error: component web: 2.0 has nothing to deploy at {path}\n"
        "  hint: it has applications/web/overlays/x; change the component's path in kfdeploy.yaml,"
        " or remove the component, and run it again\n"
    )
    assert content(site) == before
    # And as it says: the path of the release one goes to, before one goes there.
    (site / "kfdeploy.yaml").write_text(text.replace("apps/web/base", NEW["web"][0]))
    up(site, kfdeploy)


def test_stopped_while_it_is_written_the_same_command_goes_on(site: Path, kfdeploy: Runner) -> None:
    other = site.with_name("other")
    shutil.copytree(site, other)
    up(other, kfdeploy)
    whole = content(other)
    # As `write` leaves it when it is killed behind its first step.
    ready = site / UNFINISHED
    before = content(site)
    write_all(
        ready,
        {
            **{
                f"files/{name}": data.decode()
                for name, data in whole.items()
                if not name.startswith("upstream/") and before.get(name) != data
            },
            "removed.json": "["
            + ", ".join(f'"{n}"' for n in before if n not in whole and "upstream/" not in n)
            + "]",
        },
    )
    shutil.copytree(other / "upstream", ready / "upstream")
    (site / "upstream").replace(ready / "old")
    said = kfdeploy("patch", cwd=site, check=1).stderr
    assert said == (
        "error: an upgrade of this workspace was stopped while it was written\n"
        "  hint: run `kfdeploy vendor --upgrade`: it writes the rest\n"
    )
    done = kfdeploy("vendor", "--upgrade", "-q", cwd=site)
    assert done.stderr == "note: finished an upgrade that was stopped while it was written\n"
    assert content(site) == whole
    assert not ready.exists()


def test_what_a_killed_run_left_is_taken_away(site: Path, kfdeploy: Runner) -> None:
    (site / ".kfdeploy/upgrade-abc/upstream").mkdir(parents=True)
    (site / ".kfdeploy/ready-abc").mkdir()
    up(site, kfdeploy)
    assert {path.name for path in (site / ".kfdeploy").iterdir()} == {"cache", "upgrade.lock"}


# -- the real thing --------------------------------------------------------------------------------

MINE = {
    "patches/katib/mine-controller.yaml": """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: katib-controller, namespace: kubeflow}
spec:
  template:
    spec:
      containers:
      - name: katib-controller
        imagePullPolicy: IfNotPresent
""",
    "patches/pipeline/mine-minio.yaml": """\
target: {group: apps, version: v1, kind: Deployment, namespace: kubeflow, name: minio}
patch:
- {op: add, path: /spec/template/spec/nodeSelector, value: {disk: ssd}}
""",
    "patches/dex/mine-image.yaml": """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: dex, namespace: auth}
spec:
  template:
    spec:
      containers:
      - {name: dex, image: "registry.example.com/ours/dex:1"}
""",
    "patches/training-operator/mine.yaml": """\
target: {group: apps, version: v1, kind: Deployment, namespace: kubeflow, name: training-operator}
patch:
- {op: replace, path: /spec/replicas, value: 2}
""",
}


@pytest.mark.slow
def test_1_10_2_to_26_03_and_back(
    real_site: Callable[[str], Site], kfdeploy: Runner, upstreams: Path, tmp_path: Path
) -> None:
    old, new = real_site("1.10.2"), real_site("26.03")
    site = old.copy(tmp_path / "site")
    edit_workspace(site, {"images.substitutes": {**old.substitutes, **new.substitutes}})
    settings = site / "kfdeploy.yaml"
    # As `init` writes it: 26.03 would be a number, and quotes that are there stay.
    settings.write_text(settings.read_text().replace("ref: 1.10.2\n", 'ref: "1.10.2"\n'))
    for name, text in MINE.items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(text)
    kfdeploy("patch", "-q", cwd=site)
    kfdeploy("lock", "-q", cwd=site)
    before = content(site)

    def to(version: str, check: int) -> Any:
        source = ("--upstream", upstreams / f"kubeflow-{version}", "--ref", version)
        options = ("vendor", "--upgrade", *source, "-q", "--output", "json")
        return kfdeploy(*options, cwd=site, check=check).json

    said = to("26.03", 3)
    states = {change["name"]: change["state"] for change in said["components"]}
    assert {name: state for name, state in states.items() if state != "same"} == {
        "cert-manager": "moved",
        "kubeflow-issuer": "dropped",
        "networkpolicies": "dropped",
        "pipeline": "moved",
        "training-operator": "dropped",
        "trainer": "new",
    }
    # What it has become is what a fresh workspace has, and people's own beside it.
    fresh, now = content(new.root), content(site)
    for name in sorted(fresh):
        if name.startswith("upstream") or (name.startswith("patches/") and name in now):
            assert now[name] == fresh[name], name
    assert {name for name in now if name.startswith("patches/")} == {
        *(name for name in fresh if name.startswith("patches/")),
        *MINE,
    }
    assert lockfile.read_lock(site / "images.lock") == lockfile.read_lock(new.root / "images.lock")
    trials = {trial["file"]: trial for trial in said["patches"]["own"]}
    assert {name: trial["state"] for name, trial in trials.items()} == {
        "patches/dex/mine-image.yaml": "look",
        "patches/katib/mine-controller.yaml": "holds",
        "patches/pipeline/mine-minio.yaml": "misfit",
        "patches/training-operator/mine.yaml": "unused",
    }
    (note,) = trials["patches/pipeline/mine-minio.yaml"]["notes"]
    assert note["what"] == "there is no Deployment kubeflow/minio for it to change"
    (note,) = trials["patches/dex/mine-image.yaml"]["notes"]
    assert note["field"] == "spec.template.spec.containers.dex.image"
    assert note["what"] == "was 'ghcr.io/dexidp/dex:v2.41.1', is 'ghcr.io/dexidp/dex:v2.45.0'"
    assert said["carry"]["bytes"] > 0 and said["carry"]["sizeUnknown"] == []
    left = {one["component"]: one for one in said["leftBehind"]}
    assert "CustomResourceDefinition pytorchjobs.kubeflow.org" in left["training-operator"]["stays"]
    assert left["kubeflow-issuer"]["elsewhere"] == ["cert-manager"]
    assert to("1.10.2", 0)["needsPerson"] == []
    assert content(site) == before
