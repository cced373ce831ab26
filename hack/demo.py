"""The main job on the project's small upstream: two registries on loopback, `init` to `verify`.

`make demo` calls it. Each step is printed as an operator would type it, with its own output; the
first that fails ends the demo with its exit code. All that it writes lies in `.demo/`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ruamel.yaml import YAML  # noqa: E402

from tests.support.registries import NoRegistry, serve_registry  # noqa: E402
from tests.support.standins import name_standin, push_standins  # noqa: E402

WORK: Final = ROOT / ".demo"
DATA: Final = ROOT / "tests" / "data"
WORKSPACE: Final = "demo-ws"
SHOWN: Final = "registry.example.com/pipeline/driver:2.4.0"
INTERRUPTED: Final = 130


class StepFailed(Exception):
    """A step did not do what the demo shows; ``code`` is the demo's exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Steps:
    """Runs kfdeploy as an operator does and says how long each step took."""

    folder: Path
    env: Mapping[str, str]

    def run(self, *arguments: str, folder: Path | None = None) -> None:
        """Run ``kfdeploy ARGUMENTS`` with its output shown.

        Raises:
            StepFailed: it did not exit 0.
        """
        say(f"\n$ kfdeploy {shlex.join(arguments)}")
        started = time.monotonic()
        done = subprocess.run(
            ["kfdeploy", *arguments], cwd=folder or self.folder, env=self.env, check=False
        )
        if done.returncode != 0:
            raise StepFailed(
                f"`kfdeploy {shlex.join(arguments)}` exited {done.returncode}",
                done.returncode if done.returncode > 0 else 1,
            )
        say(f"({time.monotonic() - started:.1f} s)")

    def ask(self, *arguments: str) -> str:
        """What ``kfdeploy ARGUMENTS`` answers on stdout.

        Raises:
            StepFailed: it did not exit 0.
        """
        done = subprocess.run(
            ["kfdeploy", *arguments],
            cwd=self.folder,
            env=self.env,
            check=False,
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode != 0:
            raise StepFailed(f"`kfdeploy {shlex.join(arguments)}` exited {done.returncode}")
        return done.stdout


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--keep", action="store_true", help="keep the registries running at the end, until ^C"
    )
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        check_programs()
        run_demo(keep=arguments.keep)
    except StepFailed as error:
        print(f"\ndemo failed: {error}", file=sys.stderr)
        return error.code
    except NoRegistry as error:
        print(f"\ndemo failed: {error}\n  hint: `make setup` installs a registry", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return INTERRUPTED
    return 0


def check_programs() -> None:
    missing = [name for name in ("kfdeploy", "kustomize") if shutil.which(name) is None]
    if missing:
        raise StepFailed(f"not on PATH: {', '.join(missing)}; `make demo` sets them up")


def run_demo(*, keep: bool) -> None:
    """The whole run.

    Raises:
        StepFailed: at the first step that fails.
    """
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    expected = list_expected_refs()
    with run_registry("public") as public, run_registry("private") as private:
        say("Two registries on loopback; both are real ones, and only the demo uses them:")
        say(f"  {public}  stands for the registries of the world, filled with small made images")
        say(f"  {private}  is the private one, and empty")
        substitutes = {ref: name_standin(ref) for ref in push_standins(public, expected)}
        push_standins(public, substitutes.values())

        steps = Steps(WORK / WORKSPACE, make_environment())
        os.chdir(ROOT)
        steps.run(
            *("init", f"{WORK.name}/{WORKSPACE}"),
            *("--upstream", "tests/data/upstream", "--ref", "1.0.0"),
            *("--remotes", "tests/data/remotes"),
            *("--registry", f"{private}/kubeflow", "--features", "admission"),
            folder=ROOT,
        )
        say(f"\n$ cd {WORK.name}/{WORKSPACE}")
        edit_settings(steps.folder / "kfdeploy.yaml", public, substitutes)
        add_catalogue(steps.folder / "catalogue" / "stand-ins.yaml")
        steps.run("vendor")
        steps.run("scan")
        compare_with_truth(steps.ask("scan", "--format", "refs").split(), expected)
        steps.run("lock")
        steps.run("mirror")
        steps.run("patch")
        steps.run("render")
        steps.run("verify")
        steps.run("why", SHOWN)
        list_results(steps.folder)
        if keep:
            wait_for_interrupt(steps.folder, private)
        else:
            say("The registries stop now; `make demo DEMO_ARGS=--keep` keeps them.")


@contextlib.contextmanager
def run_registry(name: str) -> Iterator[str]:
    """HOST:PORT of a registry that runs until the block ends."""
    with serve_registry(WORK / f"{name}-registry") as served:
        yield served.host


def make_environment() -> dict[str, str]:
    """The caller's variables; a proxy set there must not stand between the demo and loopback."""
    direct = ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1,localhost")))
    return {**os.environ, "NO_PROXY": direct, "no_proxy": direct, "PYTHONUNBUFFERED": "1"}


def list_expected_refs() -> list[str]:
    """The images that the example names, from the tests' own truth, sorted."""
    truth: dict[str, Any] = YAML(typ="safe").load(DATA / "expected-images.yaml")
    return sorted({image["ref"] for image in truth["images"] if image.get("in_example", True)})


def edit_settings(file: Path, public: str, substitutes: Mapping[str, str]) -> None:
    """What an operator would write into kfdeploy.yaml here, comments kept."""
    if not file.is_file():
        raise StepFailed(f"`kfdeploy init` left no {file.name}")
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 200
    settings = yaml.load(file)
    settings["registries"]["sources"] = {"*": public}
    images = settings.get("images") or {}
    images["substitutes"] = dict(substitutes)
    settings["images"] = images
    with file.open("w") as opened:
        yaml.dump(settings, opened)
    say("\n# Into kfdeploy.yaml: where images are really pulled from, and a substitute for each")
    say("# image that upstream names by digest, since a made image can't have a given digest:")
    say("registries:")
    say("  sources:")
    say(f"    '*': {public}")
    say("images:")
    say("  substitutes:")
    for ref, substitute in sorted(substitutes.items()):
        say(f"    {ref}: {substitute}")


def add_catalogue(file: Path) -> None:
    """The demo's programs as a site's own entry of the catalogue, which knows Kubeflow's own."""
    file.parent.mkdir()
    file.write_text(
        "component: stand-ins\n"
        'programs: ["*.example.com/*"]\n'
        "read:\n"
        "- {versions: any, source: kfdeploy/demo@1, note: made images that pull nothing}\n"
    )
    say("\n# Into catalogue/: nobody has to look into the made images for names compiled in, as")
    say("# `kfdeploy scan` would say of programs that the catalogue does not know:")
    say(file.read_text().rstrip())


def compare_with_truth(found: Sequence[str], expected: Sequence[str]) -> None:
    """Hold the scan against the truth.

    Raises:
        StepFailed: an image is missing, or one is found that is none.
    """
    missing, surplus = sorted({*expected} - {*found}), sorted({*found} - {*expected})
    if missing or surplus:
        lines = [
            *(f"  not found: {ref}" for ref in missing),
            *(f"  no image: {r}" for r in surplus),
        ]
        raise StepFailed(
            "\n".join(("the scan differs from tests/data/expected-images.yaml:", *lines))
        )
    say(f"\nThese are the {len(expected)} images of tests/data/expected-images.yaml, and no other.")


def list_results(workspace: Path) -> None:
    """Say what to look at.

    Raises:
        StepFailed: what the steps should have left isn't there.
    """
    patches = sorted(path for path in (workspace / "patches").glob("*/*") if path.is_file())
    sets = sorted(path for path in (workspace / "releases").glob("*") if path.is_dir())
    if not patches or len(sets) != 1:
        raise StepFailed(
            f"{len(patches)} patches and {len(sets)} release sets are there at the end"
        )
    say(f"\nVerified. {len(patches)} patches, one release set. What to look at:")
    rows = [(path, "a patch") for path in choose_patches(patches)]
    rows += [
        (workspace / "kfdeploy.yaml", "the one file that a person writes"),
        (workspace / "images.lock", "every image at its digest"),
        (workspace / "images.sources.yaml", "where each was found, and what redirects it"),
        (workspace / "upstream.lock", "what the upstream is made of, remote bases included"),
        (workspace / "helmfile.yaml.gotmpl", "the same with Helmfile alone"),
    ]
    for name, what in (
        ("helmfile.yaml", "what `helmfile sync` installs"),
        ("SHA256SUMS", "what `kfdeploy verify` checks first"),
        ("images.lock", "the images of this set"),
        (
            "charts/kfdeploy-admission/charts/objects/objects.yaml",
            "what rewrites, or refuses, the images of users' pods",
        ),
    ):
        rows.append((sets[0] / name, what))
    absent = [path for path, _ in rows if not path.is_file()]
    if absent:
        raise StepFailed("not there: " + ", ".join(str(path.relative_to(ROOT)) for path in absent))
    width = max(len(str(path.relative_to(ROOT))) for path, _ in rows)
    for path, what in rows:
        say(f"  {path.relative_to(ROOT)!s:{width}}  {what}")
    say(f"\n  cd {workspace.relative_to(ROOT)}, then for instance:")
    say("  kfdeploy why mysql:8.4")
    say("  kfdeploy verify --offline")


def choose_patches(patches: Sequence[Path]) -> list[Path]:
    """A few patches of components that hide their images in different ways."""
    chosen: list[Path] = []
    for component in ("pipeline", "katib", "kserve", "istio-install"):
        of_component = [path for path in patches if path.parent.name == component]
        chosen += of_component[:1]
    return chosen or list(patches[:3])


def wait_for_interrupt(workspace: Path, private: str) -> None:
    say(f"\nThe registries run until ^C. In {workspace.relative_to(ROOT)}:")
    say("  kfdeploy mirror     # nothing is left to copy")
    say("  kfdeploy verify")
    say(f"  curl http://{private}/v2/_catalog")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
