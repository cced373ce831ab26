"""Mistakes and broken machines: the exact words, the exit code, and nothing half written."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import DATA, Runner, Site, edit_workspace, tree

NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n"
HEAD = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
SETTINGS = """\
upstream:
  source: up
  ref: 1.0.0
components:
- name: one
  path: one
registries:
  private:
    host: registry.example.com
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace of one component, ``one``."""
    (tmp_path / "up/one").mkdir(parents=True)
    (tmp_path / "up/one/kustomization.yaml").write_text(f"{HEAD}resources: [namespace.yaml]\n")
    (tmp_path / "up/one/namespace.yaml").write_text(NAMESPACE)
    (tmp_path / "kfdeploy.yaml").write_text(SETTINGS)
    return tmp_path


@dataclass(frozen=True)
class Case:
    """A file that is wrong, the command that meets it, and what it says."""

    files: dict[str, str]
    command: tuple[str, ...]
    said: str
    code: int = 1


CASES = {
    "no kustomization at a path": Case(
        {"kfdeploy.yaml": SETTINGS.replace("path: one", "path: two/x")},
        ("vendor",),
        "error: kfdeploy.yaml:6: components[0].path: no kustomization at two/x\n"
        "  hint: upstream is at 1.0.0; `kfdeploy init` lists the components it has\n",
    ),
    "broken YAML in upstream": Case(
        {"up/one/kustomization.yaml": f"{HEAD}resources:\n- a\n b: [\n"},
        ("vendor",),
        "error: one/kustomization.yaml:5: ",
    ),
    "a base that can't be fetched": Case(
        {
            "up/one/kustomization.yaml": f"{HEAD}resources:\n"
            "- https://github.invalid/org/repo/base?ref=v1\n"
        },
        ("vendor",),
        "error: one/kustomization.yaml:4: ",
    ),
    "a base that no folder of the remotes has": Case(
        {
            "kfdeploy.yaml": SETTINGS.replace(
                "  ref: 1.0.0\n",
                "  ref: 1.0.0\n  remotes:\n    https://github.com/: remotes/github.com\n",
            ),
            "remotes/github.com/other/repo@v1/kustomization.yaml": HEAD,
            "up/one/kustomization.yaml": f"{HEAD}resources:\n"
            "- https://github.com/org/repo/base?ref=v1\n",
        },
        ("vendor",),
        "error: one/kustomization.yaml:4: ",
    ),
    "a cycle": Case(
        {"up/one/kustomization.yaml": f"{HEAD}resources: [../one]\n"},
        ("vendor",),
        "error: one/kustomization.yaml:3: ",
    ),
    "a file that is not there": Case(
        {"up/one/kustomization.yaml": f"{HEAD}resources: [gone.yaml]\n"},
        ("vendor",),
        "error: one/kustomization.yaml:3: ",
    ),
    "an upstream that is not there": Case(
        {"kfdeploy.yaml": SETTINGS.replace("source: up", "source: nowhere")},
        ("vendor",),
        "error: ",
    ),
    "an unknown key": Case(
        {"kfdeploy.yaml": SETTINGS + "    hots: x\n"},
        ("scan",),
        "error: kfdeploy.yaml:10: registries.private.hots: unknown key\n"
        "  hint: see docs/workspace.md, or `kfdeploy schema`\n",
    ),
    "platforms that are none": Case(
        {
            "kfdeploy.yaml": SETTINGS + "environments:\n  a: {platforms: [amd64]}\n"
            "  b: {platforms: [linux/x86_64]}\n  c: {platforms: linux/amd64}\n"
        },
        ("lock",),
        "error: kfdeploy.yaml:11: environments.a.platforms: 'amd64' is not OS/ARCH[/VARIANT], such"
        " as linux/amd64\n"
        "error: kfdeploy.yaml:12: environments.b.platforms: 'linux/x86_64' is linux/amd64 in"
        " images\n"
        "error: kfdeploy.yaml:13: environments.c.platforms: must be a list\n",
    ),
    "a command for repositories that does not say which": Case(
        {
            "kfdeploy.yaml": SETTINGS + '    createRepository: ["./{repository}", "{host}"]\n'
            "    naming: {maxLength: 256}\n"
            "environments:\n  a: {registry: {createRepository: [x]}}\n"
        },
        ("mirror",),
        "error: kfdeploy.yaml:11: registries.private.naming.maxLength: must be less than or equal"
        " to 255\n"
        "error: kfdeploy.yaml:10: registries.private.createRepository: an argument must"
        " have {repository} in it, for the path to create\n"
        "error: kfdeploy.yaml:13: environments.a.registry.createRepository: an argument must"
        " have {repository} in it, for the path to create\n",
    ),
    "a command for repositories that is empty": Case(
        {"kfdeploy.yaml": SETTINGS + "    createRepository: []\n"},
        ("mirror",),
        "error: kfdeploy.yaml:10: registries.private.createRepository: must not be empty\n",
    ),
    "several mistakes at once": Case(
        {
            "kfdeploy.yaml": SETTINGS.replace("name: one", "name: One")
            .replace("  path: one\n", "  path: ../one\n")
            .replace("registry.example.com", "registry")
            + "environments:\n  prod:\n    imagePullPolicy: Sometimes\n  test: {colour: red}\n"
        },
        ("vendor",),
        "error: kfdeploy.yaml:5: components[0].name: must be lower-case letters, digits"
        " and dashes, not 'One'\n"
        "error: kfdeploy.yaml:6: components[0].path: must be a path below the upstream, without"
        " '..'\n"
        "error: kfdeploy.yaml:9: registries.private.host: 'registry' does not look like a registry"
        " host: it needs a dot, a port, or to be localhost\n"
        "error: kfdeploy.yaml:12: environments.prod.imagePullPolicy: must be 'Always',"
        " 'IfNotPresent' or 'Never'\n"
        "error: kfdeploy.yaml:13: environments.test.colour: unknown key\n"
        "  hint: see docs/workspace.md, or `kfdeploy schema`\n",
    ),
    "a key with dots in it": Case(
        {"kfdeploy.yaml": SETTINGS + "images:\n  substitutes:\n    'mysql:8.4': [a]\n"},
        ("scan",),
        "error: kfdeploy.yaml:12: images.substitutes['mysql:8.4']: must be a string\n",
    ),
    "a key that is there twice": Case(
        {"kfdeploy.yaml": SETTINGS + "upstream: {source: other}\n"},
        ("scan",),
        "error: kfdeploy.yaml:10: ",
    ),
    "a component that is there twice": Case(
        {"kfdeploy.yaml": SETTINGS.replace("registries:", "- {name: one, path: x}\nregistries:")},
        ("scan",),
        "error: kfdeploy.yaml:7: components[1].name: 'one' is there twice\n",
    ),
    "broken YAML in kfdeploy.yaml": Case(
        {"kfdeploy.yaml": SETTINGS.replace("    host:", "    host: [")},
        ("scan",),
        "error: kfdeploy.yaml:10: expected ',' or ']', but got '<stream end>'\n",
    ),
    "an empty kfdeploy.yaml": Case(
        {"kfdeploy.yaml": ""},
        ("scan",),
        "error: kfdeploy.yaml:1: not a mapping of settings\n  hint: see docs/workspace.md\n",
    ),
    "an unknown feature": Case(
        {"kfdeploy.yaml": SETTINGS + "features:\n  flying: {enabled: true}\n"},
        ("scan",),
        "error: kfdeploy.yaml:11: features.flying: unknown feature\n",
    ),
    "a feature of a later version": Case(
        {"kfdeploy.yaml": SETTINGS + "features:\n  pools: {enabled: true}\n"},
        ("scan",),
        "error: kfdeploy.yaml:11: features.pools: this version of kfdeploy does not have the",
    ),
    "an allowed registry without a host": Case(
        {"kfdeploy.yaml": SETTINGS + "features:\n  admission: {allow: [redis]}\n"},
        ("scan",),
        "error: kfdeploy.yaml:11: features.admission.allow: 'redis' names no registry; Docker",
    ),
    "a Kubernetes version that is none": Case(
        {"kfdeploy.yaml": SETTINGS + "environments: {default: {kubeVersion: latest}}\n"},
        ("scan",),
        "error: kfdeploy.yaml:10: environments.default.kubeVersion: 'latest' is not a Kubernetes",
    ),
    "a catalogue entry of the site's own that is damaged": Case(
        {"catalogue/mine.yaml": 'component: mine\nimages:\n- {ref: "a/b:1", when: always}\n'},
        ("scan",),
        "error: catalogue/mine.yaml:3: images[0].need: is missing\n"
        "error: catalogue/mine.yaml:3: images[0].source: is missing\n",
    ),
    "no environment of that name": Case(
        {},
        ("scan", "--env", "prod"),
        "error: --env prod: kfdeploy.yaml has no such environment; it has default\n",
        2,
    ),
    "no workspace": Case(
        {},
        ("scan", "-C", "up"),
        "error: no kfdeploy.yaml in up\n"
        "  hint: `kfdeploy init DIR --upstream ...` makes a workspace; -C DIR names another one\n",
    ),
    "a workspace that is there already": Case(
        {},
        ("init", ".", "--upstream", "up"),
        "error: kfdeploy.yaml already exists\n"
        "  hint: edit it, choose another folder (kfdeploy init DIR), or use --upgrade to move it to"
        " another release\n",
        2,
    ),
    "init without an upstream": Case(
        {},
        ("init", "new"),
        "error: --upstream is missing\n"
        "  hint: name the folder, tarball or git URL of Kubeflow's manifests\n",
        2,
    ),
    "init with an upstream that is not there": Case(
        {},
        ("init", "new", "--upstream", "nowhere"),
        "error: nowhere: no such folder or tarball\n"
        "  hint: --upstream takes a folder, a tarball or a git URL\n",
        2,
    ),
    "init with a registry that is none": Case(
        {"up/example/kustomization.yaml": f"{HEAD}resources: [../one]\n"},
        ("init", "new", "--upstream", "up", "--ref", "1.0.0", "--registry", "kube/x"),
        "error: --registry kube/x: a registry host needs a dot, a port, or to be localhost\n",
        2,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_said_and_nothing_is_written(name: str, root: Path, kfdeploy: Runner) -> None:
    case = CASES[name]
    for path, text in case.files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    before = tree(root)
    done = kfdeploy(*case.command, "--quiet", cwd=root, check=case.code)
    if case.said.endswith("\n"):
        assert done.stderr == case.said
    else:
        assert done.stderr.startswith(case.said), done.stderr
    assert done.stdout == ""
    assert tree(root) == before
    assert str(root) not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("scan", "--fromat", "json"),
        ("scan", "--format", "xml"),
        ("why",),
        ("sacn",),
        ("mirror", "-j"),
    ],
    ids=" ".join,
)
def test_wrong_use_exits_2_and_shows_the_usage(words: tuple[str, ...], kfdeploy: Runner) -> None:
    done = kfdeploy(*words, check=2)
    assert done.stderr.startswith("Usage: kfdeploy ")
    assert done.stdout == ""


# -- programs -----------------------------------------------------------------------------------


def path_with(folder: Path, *programs: str, **fakes: str) -> dict[str, str]:
    """A PATH with these programs, and scripts that print something under other names."""
    folder.mkdir()
    for name in (*programs, "sh", "env"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    for name, says in fakes.items():
        (folder / name).write_text(f"#!/bin/sh\necho '{says}'\n")
        (folder / name).chmod(0o755)
    return {"PATH": str(folder)}


def test_a_missing_or_old_program_is_named_with_what_is_needed(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    root = small_site.copy(tmp_path / "site")
    edit_workspace(root, {"registries.private.prefix": "nobody/was/here"})
    before = tree(root)

    def said(*command: str, env: dict[str, str]) -> str:
        return kfdeploy(*command, "--quiet", cwd=root, env=env, check=1).stderr

    none = path_with(tmp_path / "none")
    assert said("scan", env=none) == (
        "error: kustomize is not on PATH\n  hint: `kfdeploy doctor` says how to install kustomize\n"
    )
    old = path_with(tmp_path / "old", kustomize="v4.5.7")
    assert said("patch", env=old) == (
        "error: kustomize is 4.5.7; 5.4 or later is needed\n"
        "  hint: `kfdeploy doctor` says how to install a newer one\n"
    )
    assert tree(root) == before


# -- disks --------------------------------------------------------------------------------------

WRITES = ("vendor", "lock", "patch", "render")
MADE = {
    "vendor": ("upstream", "upstream.lock"),
    "lock": ("images.lock", "images.sources.yaml"),
    "patch": ("patches", "helmfile.yaml.gotmpl"),
    "render": ("releases",),
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small disk: ``disk("size=1m")``."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        at = tmp_path / f"disk{len(mounted)}"
        at.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", str(at)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        mounted.append(at)
        return at

    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    yield mount
    for at in mounted:
        subprocess.run(["umount", str(at)], check=True)


def undone(site: Site, target: Path, command: str) -> Path:
    """A copy of a finished workspace without what a command makes, nor any cache."""
    shutil.copytree(
        site.root,
        target,
        symlinks=True,
        dirs_exist_ok=True,
        ignore=lambda folder, names: (
            {".kfdeploy", *MADE[command], *(() if command == "render" else MADE["render"])}
            if Path(folder) == site.root
            else set()
        ),
    )
    return target


def fill_up(disk: Path) -> Path:
    """Fill a disk to its last page; returns the file to remove."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return filler


@pytest.mark.parametrize("command", WRITES)
def test_a_full_disk_leaves_the_workspace_as_it_was(
    command: str, small_site: Site, kfdeploy: Runner, disk: Callable[[str], Path]
) -> None:
    root = undone(small_site, disk("size=4m"), command)
    filler = fill_up(root)
    before = tree(root)
    said = kfdeploy(command, "--quiet", cwd=root, check=1).stderr
    assert re.fullmatch(r"error: .+: can't be written: no space left on device\n", said), said
    assert tree(root) == before
    assert not [path for path in root.iterdir() if path.name.startswith((".up", ".rel", ".im"))]
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", str(root)], check=True)
    kfdeploy(command, "--quiet", cwd=root)
    for name in MADE[command]:
        there, wanted = root / name, small_site.root / name
        if wanted.is_dir():
            assert tree(there) == tree(wanted)
        else:
            assert there.read_bytes() == wanted.read_bytes()


@pytest.mark.parametrize("command", WRITES)
def test_a_read_only_folder_is_said_and_left_as_it_was(
    command: str, small_site: Site, kfdeploy: Runner, disk: Callable[[str], Path]
) -> None:
    root = undone(small_site, disk("size=64m"), command)
    subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
    before = tree(root)
    said = kfdeploy(command, "--quiet", cwd=root, check=1).stderr
    assert re.fullmatch(r"error: .+: can't be written: read-only file system\n", said), said
    assert tree(root) == before
    # What only reads does its work all the same.
    if command == "render":
        assert len(kfdeploy("scan", "--format", "refs", cwd=root).stdout.split()) == len(
            small_site.refs
        )


def test_output_that_can_not_be_written_is_an_error(small_site: Site, kfdeploy: Runner) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*kfdeploy.command, "schema"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=kfdeploy.environment(),
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: no space left on device\n"), done.stderr


def test_init_leaves_nothing_where_it_can_not_write_all(
    kfdeploy: Runner, disk: Callable[[str], Path]
) -> None:
    root = disk("size=64k")
    fill_up(root)
    before = tree(root)
    said = kfdeploy("init", root, "--upstream", DATA / "upstream", "--ref", "1", check=1).stderr
    assert "no space left on device" in said
    assert tree(root) == before
