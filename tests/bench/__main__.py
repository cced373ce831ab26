"""`make bench`: ratios from one run, each beside the target that the project set itself.

    python -m tests.bench [NAME ...] [--quick] [--output json]

Every program is measured as a whole process, start-up included. What is compared is measured in
turns, A B A B, and the medians are compared. A target that is not met is printed as such and is no
failure: the exit code says only whether everything could be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench.cases import CASES, ONCE
from tests.bench.measure import BenchFailed, Place
from tests.bench.report import table
from tests.bench.result import Result, Rounds
from tests.bench.sites import KFDEPLOY, Site, registries, upstreams
from tests.support import madeset
from tests.support.registries import NoRegistry

FULL: Final = Rounds(long=3, short=9)
QUICK: Final = Rounds(long=1, short=3, shape=madeset.QUICK)
PROGRAMS: Final = {
    "kustomize": ("version",),
    "helmfile": ("--version",),
    "helm": ("version", "--short"),
    "skopeo": ("--version",),
    "crane": ("version",),
    "regsync": ("version", "--format", "{{.VCSTag}}"),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CASES))
    parser.add_argument(
        "--quick", action="store_true", help="one round each and small images, for a first look"
    )
    parser.add_argument("--output", choices=("text", "json"), default="text")
    arguments = parser.parse_args(argv)
    chosen = {name: _cases(name) for name in arguments.names}
    if unknown := [name for name, cases in chosen.items() if not cases]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(CASES)}")
    names = [case for cases in chosen.values() for case in cases] or list(CASES)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        report = run(names, QUICK if arguments.quick else FULL)
    except (BenchFailed, NoRegistry) as error:
        print(f"bench failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    if arguments.output == "json":
        json.dump(report["json"], sys.stdout, indent=2)
        print()
    else:
        print("\n".join(report["text"]))
    return 0


def run(names: Sequence[str], rounds: Rounds) -> dict[str, Any]:
    """Measure, and give the report in both forms.

    Raises:
        BenchFailed: something can't be measured.
    """
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise BenchFailed(f"not on PATH: {', '.join(missing)}; `make bench` sets them up")
    found, note = upstreams()
    if note:
        print(f"bench: {note}", file=sys.stderr, flush=True)
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="kfdeploy-bench-") as folder:
        work = Path(folder)
        env = environment(work)
        facts = about(Place(work, env), rounds)
        with registries(work) as hosts:
            sites = [Site(upstream, work, hosts, env) for upstream in found]
            for result in measured(names, sites, rounds):
                results.append(result)
                print(f"bench: {table([result])[-1]}", file=sys.stderr, flush=True)
    order = {name: number for number, name in enumerate(names)}
    results.sort(key=lambda result: _rank(result, order))
    notes = [note] if note else []
    return {
        "json": {"about": facts, "notes": notes, "results": [r.to_json() for r in results]},
        "text": [
            *(f"{name}: {value}" for name, value in facts.items()),
            *notes,
            "",
            *table(results),
        ],
    }


def measured(names: Sequence[str], sites: Sequence[Site], rounds: Rounds) -> Iterator[Result]:
    """A case after the other, and each on all releases."""
    for name in names:
        for site in sites[:1] if name in ONCE else sites:
            yield from CASES[name](site, rounds)


def _cases(name: str) -> list[str]:
    """The case of that name, or all that begin with it: ``mirror`` for ``mirror-cold``."""
    return [case for case in CASES if case == name or case.startswith(f"{name}-")]


def _rank(result: Result, order: Mapping[str, int]) -> int:
    return next((n for name, n in order.items() if result.benchmark.startswith(name)), len(order))


def environment(work: Path) -> dict[str, str]:
    """The caller's variables; loopback without a proxy, and everything that is kept is ours."""
    direct = ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1,localhost")))
    own = {"NO_PROXY": direct, "no_proxy": direct}
    for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        folder = work / name.lower()
        folder.mkdir()
        own[name] = str(folder)
    own["DOCKER_CONFIG"] = own["HOME"]
    # Whoever sets these would measure Python's compiler, or slow output.
    odd = {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "GOGC", "GOMEMLIMIT", "GOMAXPROCS"}
    return {**{name: value for name, value in os.environ.items() if name not in odd}, **own}


def about(place: Place, rounds: Rounds) -> dict[str, str]:
    """What was measured, and where: numbers of two machines can't be compared, ratios can."""
    versions = [place.answer(KFDEPLOY, "--version").strip()]
    for name, arguments in PROGRAMS.items():
        said = place.answer(name, *arguments).strip().splitlines()[0]
        versions.append(said if said.startswith(name) else f"{name} {said}")
    return {
        "programs": ", ".join([*versions, f"Python {platform.python_version()}"]),
        "machine": f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start",
        "rounds": f"{rounds.long}, short ones {rounds.short}; in turns; medians",
    }


if __name__ == "__main__":
    raise SystemExit(main())
