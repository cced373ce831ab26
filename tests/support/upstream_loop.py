"""Upstream's own way to apply Kubeflow: again and again, until nothing is refused.

    while ! kustomize build example | kubectl apply --server-side --force-conflicts -f -; do
      echo "Retrying to apply resources"; sleep 20
    done

as upstream's README has it since 1.10.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SLEEP_SECONDS: Final = 20.0
"""Upstream's pause after a pass that failed."""
REPAIRS: Final = {"$(profile-name)": "kubeflow-user-example-com"}
"""What kustomize 5.8 leaves in 1.10.2's build, and upstream's own kustomize (5.4) fills in."""
_REFUSED: Final = re.compile(
    r"^(?:error: |\[)?(?:Error from server|resource mapping not found|unable to recognize|error: )"
    r"|, (?=resource mapping not found)",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Pass:
    """One `kubectl apply` of everything.

    Attributes:
        seconds: kustomize's included.
        refused: objects that were refused.
        said: kubectl's stderr.
    """

    seconds: float
    refused: int
    said: str


@dataclass(frozen=True, slots=True)
class Loop:
    """A whole run; nothing was refused in its last pass."""

    passes: tuple[Pass, ...]
    sleep: float

    @property
    def seconds(self) -> float:
        """From the beginning to the end of the last pass, as one who waits for it counts."""
        return self.working_seconds + self.sleep * (len(self.passes) - 1)

    @property
    def working_seconds(self) -> float:
        """Without the pauses."""
        return sum(each.seconds for each in self.passes)

    def __str__(self) -> str:
        passes = ", ".join(f"{p.seconds:.0f} s with {p.refused} refused" for p in self.passes)
        return f"{len(self.passes)} passes in {self.seconds:.0f} s: {passes}"


class NeverDone(RuntimeError):
    """It still failed after as many passes as were allowed."""


def local_example(upstream: Path, folder: Path) -> Path:
    """Upstream's example as a kustomization in ``folder`` that builds without a network.

    ``upstream`` is a vendored tree: what reaches remotes has a copy below ``_local`` there.
    """
    folder.mkdir(parents=True)
    content = (upstream / "example" / "kustomization.yaml").read_text()

    def moved(found: re.Match[str]) -> str:
        path = found[2].rstrip("/")
        place = upstream / "_local" / path
        if not (place / "kustomization.yaml").exists():
            place = upstream / path
        return f"{found[1]}{os.path.relpath(place.resolve(), folder.resolve())}"

    text = re.sub(r"^(- )\.\./(\S+)", moved, content, flags=re.MULTILINE)
    (folder / "kustomization.yaml").write_text(text)
    return folder


def run_loop(
    example: Path,
    env: Mapping[str, str],
    *,
    sleep: float = SLEEP_SECONDS,
    passes: int = 15,
    repairs: Mapping[str, str] = REPAIRS,
) -> Loop:
    """Apply upstream's example until its last pass succeeds.

    Args:
        example: a kustomization, such as `local_example` makes.
        env: all variables; KUBECONFIG among them says which cluster.
        repairs: text of the build that is replaced, for no pass would ever succeed.

    Raises:
        NeverDone: with what was refused last.
        CalledProcessError: kustomize fails.
    """
    done: list[Pass] = []
    while len(done) < passes:
        if done:
            time.sleep(sleep)
        started = time.perf_counter()
        build = subprocess.run(
            ["kustomize", "build", "--load-restrictor", "LoadRestrictionsNone", str(example)],
            env=dict(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        ).stdout
        for wrong, right in repairs.items():
            build = build.replace(wrong, right)
        applied = subprocess.run(
            ["kubectl", "apply", "--server-side", "--force-conflicts", "-f", "-"],
            env=dict(env),
            input=build,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - started
        refused = len(_REFUSED.findall(applied.stderr))
        done.append(Pass(seconds, refused, applied.stderr))
        if applied.returncode == 0:
            return Loop(tuple(done), sleep)
    raise NeverDone(f"{passes} passes, and still:\n{done[-1].said[-3000:]}")
