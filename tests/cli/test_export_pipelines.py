"""`kfdeploy export gitlab-ci|github-actions|containerfile`: definitions that a site starts from."""

from __future__ import annotations

import importlib
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML

from kfdeploy import cli
from tests.conftest import Runner, Site, edit_workspace

NAMES = ("default", "production")
SECRETS = ("REGISTRY_AUTH", "TOKEN", "CLUSTER", "KFDEPLOY_NOTE_TOKEN", "KUBECONFIG")
EACH = pytest.mark.parametrize(
    ("name", "gap"),
    [(name, gap) for name in ("gitlab-ci", "github-actions") for gap in (False, True)],
)


@pytest.fixture(scope="module")
def root(small_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = small_site.copy(tmp_path_factory.mktemp("pipelines") / "site")
    private = {"host": "registry.example.net", "prefix": "kf"}
    edit_workspace(
        folder, {"registries.private": private, "environments": {name: {} for name in NAMES}}
    )
    return folder


def exported(kfdeploy: Runner, root: Path, name: str, gap: bool = False) -> dict[str, str]:
    options = ["--gap"] if gap else []
    found: dict[str, str] = kfdeploy(
        "export", name, *options, "-q", "--output", "json", cwd=root
    ).json
    return found


def read(text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(io.StringIO(text))
    return loaded


def scripts(definition: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each job's shell text, as its engine puts it together."""
    if "jobs" in definition:
        for name, job in definition["jobs"].items():
            yield name, "\n".join(step["run"] for step in job["steps"] if "run" in step)
        return
    first = definition["default"]["before_script"]
    for name, job in definition.items():
        if isinstance(job, dict) and "script" in job:
            yield name, "\n".join([*first, *job["script"]])


def calls(text: str) -> Iterator[list[str]]:
    """The words of each call of kfdeploy, up to what the shell takes."""
    for line in text.splitlines():
        if line.strip().startswith("kfdeploy "):
            words = shlex.split(line, comments=True)
            ends = [n for n, word in enumerate(words) if re.fullmatch(r"[|&;<>]+.*", word)]
            yield words[1 : ends[0] if ends else None]


@EACH
def test_the_official_schema_takes_it(
    name: str, gap: bool, root: Path, kfdeploy: Runner, tmp_path: Path
) -> None:
    pytest.importorskip("check_jsonschema")
    schema = {"gitlab-ci": "vendor.gitlab-ci", "github-actions": "vendor.github-workflows"}[name]
    files = []
    for number, text in enumerate(exported(kfdeploy, root, name, gap).values()):
        files.append(tmp_path / f"{number}.yaml")
        files[-1].write_text(text)
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        schema,
        *map(str, files),
    ]
    if name == "gitlab-ci":
        command += ["--data-transform", "gitlab-ci"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@EACH
def test_each_job_is_shell_that_parses(name: str, gap: bool, root: Path, kfdeploy: Runner) -> None:
    for text in exported(kfdeploy, root, name, gap).values():
        found = dict(scripts(read(text)))
        assert found
        for job, script in found.items():
            done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, ""), f"{job}:\n{script}"


@EACH
def test_each_call_is_one_that_kfdeploy_has(
    name: str, gap: bool, root: Path, kfdeploy: Runner
) -> None:
    """Commands and options can't rot: each line is read by the real command line."""
    for path in Path(cli.__file__).parent.glob("*.py"):
        if not path.stem.startswith("__"):
            importlib.import_module(f"kfdeploy.cli.{path.stem}")
    from kfdeploy.cli.common import app

    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    seen = set()
    for text in exported(kfdeploy, root, name, gap).values():
        for _, script in scripts(read(text)):
            for words in calls(script):
                command, *arguments = words
                seen.add(command)
                assert command in commands, words
                commands[command].make_context(command, list(arguments))
    assert seen >= {"mirror", "render", "verify", "publish", "apply", "diff", "audit"}


@EACH
def test_each_environment_has_its_jobs(name: str, gap: bool, root: Path, kfdeploy: Runner) -> None:
    both = {
        job
        for text in exported(kfdeploy, root, name, gap).values()
        for job, _ in scripts(read(text))
    }
    steps = {"mirror", "preview", "render", "apply", "audit"}
    steps |= {"bundle"} if gap else set()
    steps |= {"plan"} if name == "gitlab-ci" else set()
    assert both == {"check", *(f"{step}-{env}" for step in steps for env in NAMES)}


@EACH
def test_each_job_needs_what_is_there(name: str, gap: bool, root: Path, kfdeploy: Runner) -> None:
    for text in exported(kfdeploy, root, name, gap).values():
        definition = read(text)
        jobs = definition.get("jobs", definition)
        for job, body in jobs.items():
            needs = body.get("needs", []) if isinstance(body, dict) else []
            for other in [needs] if isinstance(needs, str) else needs:
                assert other in jobs, job
            if "stages" in definition and isinstance(body, dict) and "script" in body:
                assert body["stage"] in definition["stages"]


def test_what_is_applied_waits_for_a_person(root: Path, kfdeploy: Runner) -> None:
    (gitlab,) = exported(kfdeploy, root, "gitlab-ci").values()
    (github,) = exported(kfdeploy, root, "github-actions").values()
    for env in NAMES:
        job = read(gitlab)[f"apply-{env}"]
        assert [rule["when"] for rule in job["rules"]] == ["manual"]
        assert job["environment"] == {"name": env}
        assert job["resource_group"] == f"kfdeploy-{env}"
        # GitHub asks an environment's reviewers before the job begins.
        assert read(github)["jobs"][f"apply-{env}"]["environment"] == env


def test_with_a_gap_neither_side_reaches_for_the_other(root: Path, kfdeploy: Runner) -> None:
    for name in ("gitlab-ci", "github-actions"):
        connected, inside = (
            text for _, text in sorted(exported(kfdeploy, root, name, True).items())
        )
        texts = {side: "\n".join(s for _, s in scripts(read(t))) for side, t in
                 (("connected", connected), ("inside", inside))}  # fmt: skip
        assert "--to-bundle" in texts["connected"] and "--from-bundle" not in texts["connected"]
        assert "--from-bundle" in texts["inside"] and "--to-bundle" not in texts["inside"]
        assert not re.search(r"kfdeploy (apply|audit|diff|publish)", texts["connected"])
        assert "inside" not in re.findall(r"tags: \[(\w+)\]|self-hosted, (\w+)", connected)


@EACH
def test_no_secret_is_an_argument(name: str, gap: bool, root: Path, kfdeploy: Runner) -> None:
    """They are files, or written into one by the shell itself, which has no argument list."""
    for text in exported(kfdeploy, root, name, gap).values():
        assert "echo" not in text and "set -x" not in text
        for _, script in scripts(read(text)):
            assert "${{" not in script  # nor text that somebody else may have written
            for line in script.splitlines():
                for secret in SECRETS:
                    if re.search(rf"\$\{{?{secret}\b", line):
                        assert re.search(
                            r"printf '[^']*%s|^test |install -m 600|> \"\$KUBE", line
                        ), line


def test_jobs_run_in_the_image_that_is_named(root: Path, kfdeploy: Runner) -> None:
    from kfdeploy import __version__

    (usual,) = exported(kfdeploy, root, "gitlab-ci").values()
    image = read(usual)["default"]["image"]
    assert image == {"name": f"registry.example.net/kf/kfdeploy:{__version__}", "entrypoint": [""]}
    done = kfdeploy("export", "github-actions", "--image", "r.test/k:1", cwd=root)
    assert {job["container"] for job in read(done.stdout)["jobs"].values()} == {"r.test/k:1"}
    assert done.stderr == (
        "note: jobs run in r.test/k:1, which `kfdeploy export containerfile` describes\n"
    )


def test_the_other_form_goes_when_it_is_written_again(
    root: Path, kfdeploy: Runner, tmp_path: Path
) -> None:
    kfdeploy("export", "gitlab-ci", "--to", tmp_path, "-q", cwd=root)
    (tmp_path / "own.gitlab-ci.yml").write_text("a: b\n")
    done = kfdeploy("export", "gitlab-ci", "--gap", "--to", tmp_path, "-q", cwd=root)
    assert done.stdout == f"{tmp_path}: 2 files, 2 written, 1 removed\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "connected.gitlab-ci.yml",
        "inside.gitlab-ci.yml",
        "own.gitlab-ci.yml",
    ]


# -- the image -------------------------------------------------------------------------------------


def instructions(text: str, folder: Path) -> list[dict[str, Any]]:
    parse = pytest.importorskip("dockerfile_parse")
    (folder / "Dockerfile").write_text(text)
    found: list[dict[str, Any]] = parse.DockerfileParser(str(folder / "Dockerfile")).structure
    return [each for each in found if each["instruction"] != "COMMENT"]


def test_the_image_is_built_from_what_a_bundle_has(
    root: Path, kfdeploy: Runner, tmp_path: Path
) -> None:
    (text,) = exported(kfdeploy, root, "containerfile").values()
    found = instructions(text, tmp_path)
    copied = {each["value"].split()[-2] for each in found if each["instruction"] == "COPY"}
    assert copied == {"wheels/", "programs/", "/opt/kfdeploy"}
    # As nobody, and each base can be pinned.
    (user,) = (each["value"] for each in found if each["instruction"] == "USER")
    assert int(user) > 0
    assert [each["value"] for each in found if each["instruction"] == "FROM"] == [
        "${BASE} AS build",
        "${BASE}",
    ]
    assert json.loads(found[-1]["value"]) == ["kfdeploy"]


def test_the_images_commands_are_shell_that_parses(
    root: Path, kfdeploy: Runner, tmp_path: Path
) -> None:
    (text,) = exported(kfdeploy, root, "containerfile").values()
    runs = [e["value"] for e in instructions(text, tmp_path) if e["instruction"] == "RUN"]
    assert len(runs) == 3
    for run in runs:
        script = re.sub(r"^(--\S+\s+)+", "", run)
        done = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), script
