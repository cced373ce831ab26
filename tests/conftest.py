"""What tests share: the command as an operator runs it, registries, a cluster, finished workspaces.

All are made once a run, when first asked for, pytest-xdist or not: they lie in a folder that the
controlling process makes, under a file lock. Registries and cluster: tests/support/services.py.

A test that changes a site copies it first (`Site.copy`).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import markers
from tests.support.cluster import Cluster, NoCluster
from tests.support.forks import ForkServer, differs_at_start
from tests.support.live import LiveCluster, serve_live_cluster
from tests.support.registries import MEMORY
from tests.support.services import NotServed, Run, only_one, service

ROOT: Final = Path(__file__).resolve().parent.parent
DATA: Final = ROOT / "tests" / "data"
CURRENT: Final = "26.03"
PREVIOUS: Final = "1.10.2"
"""The release before, which only `make test-all` makes a site of."""
RELEASES: Final = (CURRENT, pytest.param(PREVIOUS, marks=pytest.mark.slow))
_SHARED: Final = "KFDEPLOY_TEST_SHARED"
_START_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Done:
    """What a run of kfdeploy left."""

    arguments: tuple[str, ...]
    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def json(self) -> Any:
        """Its stdout, read as JSON."""
        return json.loads(self.stdout)

    def __str__(self) -> str:
        said = f"{self.stdout}\n--- stderr\n{self.stderr}"
        return f"kfdeploy {' '.join(self.arguments)} exited {self.code}:\n{said}"


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs kfdeploy, away from the caller's sign-ins and proxies.

    Attributes:
        command: starts kfdeploy as an operator does, for tests about start-up, signals, terminals.
        env: variables that it runs with.
        forks: forks each run from a process that has imported kfdeploy; without it each run
            starts Python.
    """

    command: tuple[str, ...]
    env: Mapping[str, str]
    forks: ForkServer | None = None

    def __call__(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        check: int | None = 0,
        timeout: float = 600,
    ) -> Done:
        """Run ``kfdeploy ARGUMENTS``.

        Args:
            env: variables added; None takes one away.
            check: the exit code that is expected; None takes any.
        """
        words = tuple(map(str, arguments))
        started = time.monotonic()
        variables = self.environment(env)
        if self.forks is None or differs_at_start(env or {}):
            done = subprocess.run(
                [*self.command, *words],
                cwd=cwd,
                env=variables,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                encoding="utf-8",
                check=False,
                timeout=timeout,
            )
        else:
            done = self.forks.run(words, cwd=cwd, env=variables, timeout=timeout)
        took = time.monotonic() - started
        result = Done(words, done.returncode, done.stdout, done.stderr, took)
        if check is not None:
            assert result.code == check, f"not {check}: {result}"
            assert "Traceback (most recent call last)" not in result.stderr, str(result)
        return result

    def environment(self, changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
        """The variables that it runs with."""
        merged: dict[str, str | None] = {**self.env, **(changes or {})}
        return {name: value for name, value in merged.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Served:
    """The two registries' HOST:PORT, and the folders they keep their images in."""

    public: str
    private: str
    public_folder: Path
    private_folder: Path


@dataclass(frozen=True, slots=True)
class Site:
    """A finished workspace.

    Attributes:
        root: its folder; not to be changed.
        public: HOST:PORT that all sources are pulled from.
        private: HOST:PORT of the private registry.
        prefix: path below it.
        version: the upstream's.
        refs: what `scan` lists.
        substitutes: references named by digest, and what stands in for each.
        steps: command to what it said when the site was made.
    """

    root: Path
    public: str
    private: str
    prefix: str
    version: str
    refs: tuple[str, ...]
    substitutes: Mapping[str, str]
    steps: Mapping[str, Done]

    @property
    def set(self) -> Path:
        """Its release set."""
        return self.root / "releases" / "default"

    def copy(self, target: Path) -> Path:
        """The workspace again, to be changed; its paths to upstream still hold."""
        shutil.copytree(self.root, target, symlinks=True)
        return target


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    config.stash[_RUN] = run = Run()
    os.environ[_SHARED] = str(run.folder)
    if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _MEMORY_LEAST:
        made = tempfile.mkdtemp(prefix="kfdeploy-tests-", dir=_MEMORY)
        config.stash[_IN_MEMORY] = os.environ[MEMORY] = made


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark tests that need more than the project itself (tests/support/markers.py)."""
    for item in items:
        if isinstance(item, pytest.Function):
            markers.mark_by_needs(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with markers.hold_to_markers(item):
        return (yield)


def pytest_unconfigure(config: pytest.Config) -> None:
    if run := config.stash.get(_RUN, None):
        del os.environ[_SHARED]
        run.end()
    # Workers have the variable too, and end before others do.
    if folder := config.stash.get(_IN_MEMORY, ""):
        os.environ.pop(MEMORY, None)
        shutil.rmtree(folder, ignore_errors=True)


_RUN: Final = pytest.StashKey[Run]()
_IN_MEMORY: Final = pytest.StashKey[str]()
_MEMORY: Final = Path("/dev/shm")
_MEMORY_LEAST: Final = 4 * 1024**3


@pytest.fixture(scope="session")
def shared() -> Path:
    """A folder that all processes of this run share; it is gone afterwards."""
    return Path(os.environ[_SHARED])


@pytest.fixture(scope="session")
def upstreams() -> Path:
    """The folder with the real Kubeflow releases, ``kubeflow-VERSION``, and their ``remotes``."""
    named = os.environ.get("KFDEPLOY_UPSTREAMS")
    folder = Path(named) if named else ROOT.parent / "shared" / "upstream"
    if not folder.is_dir():
        pytest.skip(
            "the real Kubeflow releases are not there: put them into ../shared/upstream, or name"
            " their folder in KFDEPLOY_UPSTREAMS"
        )
    return folder.resolve()


@pytest.fixture(scope="session")
def kfdeploy(shared: Path) -> Iterator[Runner]:
    """Runs ``kfdeploy`` as an operator does."""
    script = Path(sys.executable).with_name("kfdeploy")
    command = (str(script),) if script.exists() else (sys.executable, "-m", "kfdeploy.cli")
    direct = ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1,localhost")))
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        "DOCKER_CONFIG": str(shared / "no-docker-config"),
        "NO_PROXY": direct,
        "no_proxy": direct,
    }
    with contextlib.closing(ForkServer(shared, env)) as forks:
        yield Runner(command, env, forks)


@pytest.fixture(scope="session")
def registries(shared: Path) -> Served:
    """A public and a private registry on loopback, both real ones."""
    content = _service(shared, "registries")
    return Served(
        content["public"], content["private"], shared / "public-data", shared / "private-data"
    )


@pytest.fixture(scope="session")
def cluster(shared: Path) -> Cluster:
    """A Kubernetes control plane on loopback, without nodes, for all tests of the run.

    What a test creates in it others see: it uses namespaces of its own, and names of its own for
    what is in no namespace.
    """
    content = _service(shared, "cluster")
    content["kubeconfig"] = Path(content["kubeconfig"])
    content["folder"] = Path(content["folder"])
    return Cluster(**content)


@pytest.fixture(scope="session")
def live(shared: Path) -> LiveCluster:
    """A control plane with stand-ins for nodes and operators, for all tests of the run.

    As `cluster`, with pods that run: for tests that make objects of their own in it. Whole sets go
    into a `live_cluster`.
    """
    return LiveCluster.from_json(_service(shared, "live"))


@pytest.fixture
def live_cluster(tmp_path: Path) -> Iterator[Callable[..., LiveCluster]]:
    """Starts fresh clusters that whole sets can be applied to, in seconds each.

    ``live = live_cluster(faults=[...])``, with `serve_live_cluster`'s options, and then
    ``kfdeploy("apply", site.set, env=live.env)``. They end with the test.
    """
    with contextlib.ExitStack() as stack:
        numbers = itertools.count(1)

        def start(**options: Any) -> LiveCluster:
            folder = tmp_path / f"live-{next(numbers)}"
            try:
                return stack.enter_context(serve_live_cluster(folder, **options))
            except NoCluster as error:
                pytest.skip(str(error))

        yield start


@pytest.fixture(scope="session")
def small_site(shared: Path, kfdeploy: Runner, registries: Served) -> Site:
    """The project's small upstream, from `init` to `render`."""
    need_programs("kustomize")
    return _made_once(
        shared / "small",
        lambda folder: make_site(
            kfdeploy,
            registries,
            folder,
            upstream=DATA / "upstream",
            remotes=DATA / "remotes",
            version="1.0.0",
            prefix="small",
        ),
    )


@pytest.fixture(scope="session")
def real_site(
    shared: Path, kfdeploy: Runner, registries: Served, upstreams: Path
) -> Callable[[str], Site]:
    """A real Kubeflow release, from `init` to `render`: ``real_site("26.03")``."""
    need_programs("kustomize")

    def made(version: str) -> Site:
        if version == PREVIOUS:
            markers.require_slow(f"a site of {version}")
        upstream = upstreams / f"kubeflow-{version}"
        if not upstream.is_dir():
            pytest.skip(f"{upstream.name} is not in the folder of real releases")
        return _made_once(
            shared / f"real-{version}",
            lambda folder: make_site(
                kfdeploy,
                registries,
                folder,
                upstream=upstream,
                remotes=upstreams / "remotes",
                version=version,
                prefix=f"kf-{version}",
            ),
        )

    return made


BESIDE: Final = {
    "26.03": {
        "eventing": "common/knative/knative-eventing/base",
        "ambient": "common/istio/istio-install/overlays/ambient-oauth2-proxy",
        "oauth2-proxy-kind": "common/oauth2-proxy/overlays/m2m-dex-and-kind",
        "training-operator": "applications/training-operator/upstream/overlays/kubeflow",
        "registry-db": "applications/model-registry/upstream/overlays/db",
        "registry-postgres": "applications/model-registry/upstream/overlays/postgres",
        "registry-ui": "applications/model-registry/upstream/options/ui/overlays/istio",
        "registry-csi": "applications/model-registry/upstream/options/csi",
        "registry-controller": "applications/model-registry/upstream/options/controller"
        "/overlays/base",
        "registry-catalog": "applications/model-registry/upstream/options/catalog/base",
        "ray": "experimental/ray/kuberay-operator/overlays/kubeflow",
        "pipeline-native": "applications/pipeline/upstream/env/cert-manager"
        "/platform-agnostic-multi-user-k8s-native",
    },
}
"""Parts that upstream ships beside its example, and that build from what is at hand."""


@pytest.fixture(scope="session")
def beside(shared: Path, kfdeploy: Runner, upstreams: Path) -> Path:
    """A workspace with 26.03's optional parts, from `init` to `render`, by tag: none is asked."""
    need_programs("kustomize")
    version = "26.03"
    folder = shared / f"beside-{version}"
    with only_one(folder):
        if not (folder / "releases").exists():
            upstream = upstreams / f"kubeflow-{version}"
            sources = ("--upstream", upstream, "--ref", version, "--remotes", upstreams / "remotes")
            kfdeploy("init", folder, *sources, "--registry", "registry.test:5000/kf")
            parts = [{"name": name, "path": path} for name, path in BESIDE[version].items()]
            edit_workspace(folder, {"components": parts})
            kfdeploy("vendor", cwd=folder)
            kfdeploy("lock", "--offline", cwd=folder, check=1)
            kfdeploy("patch", cwd=folder)
            kfdeploy("render", "--unpinned", cwd=folder)
    return folder


def _service(shared: Path, name: str) -> dict[str, Any]:
    try:
        content = service(shared, name)
    except NotServed as error:
        pytest.fail(str(error), pytrace=False)
    if "error" in content:
        pytest.skip(content["error"])
    return content


def need_programs(*names: str) -> None:
    """Skip the test where a program is missing."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not on PATH: {', '.join(missing)}; `make setup` installs them")


def make_site(
    kfdeploy: Runner,
    registries: Served,
    folder: Path,
    *,
    upstream: Path,
    remotes: Path,
    version: str,
    prefix: str,
) -> Site:
    """A workspace in ``folder`` with all steps done, its images made up as it asks for them."""
    from tests.support.standins import name_standin, push_standins

    steps: dict[str, Done] = {}

    def step(name: str, *arguments: str | Path) -> Done:
        steps[name] = kfdeploy(name, *arguments, cwd=folder if name != "init" else None)
        return steps[name]

    step(
        "init",
        *(folder, "--upstream", upstream, "--ref", version, "--remotes", remotes),
        *("--registry", f"{registries.private}/{prefix}"),
    )
    # Absolute, so that a copy elsewhere finds it too.
    places = {f"https://{path.name}/": str(path) for path in sorted(remotes.iterdir())}
    folders = {prefix: place for prefix, place in places.items() if Path(place).is_dir()}
    edit_workspace(
        folder,
        {
            "upstream": {"source": str(upstream), "ref": version, "remotes": folders},
            "registries.sources": {"*": registries.public},
        },
    )
    step("vendor")
    refs = tuple(step("scan", "--format", "refs").stdout.split())
    substitutes = {ref: name_standin(ref) for ref in push_standins(registries.public, refs)}
    push_standins(registries.public, substitutes.values())
    edit_workspace(folder, {"images.substitutes": substitutes})
    for name in ("lock", "mirror", "patch", "render"):
        step(name)
    return Site(
        folder, registries.public, registries.private, prefix, version, refs, substitutes, steps
    )


def edit_workspace(folder: Path, changes: Mapping[str, Any]) -> None:
    """Set keys of ``kfdeploy.yaml`` as a person would, comments kept; None takes one out."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    file = folder / "kfdeploy.yaml"
    settings = yaml.load(file)
    for key, value in changes.items():
        *parents, last = key.split(".")
        section = settings
        for name in parents:
            if section.get(name) is None:
                section[name] = {}
            section = section[name]
        if value is None:
            section.pop(last, None)
        else:
            section[last] = value
    with file.open("w", encoding="utf-8") as opened:
        yaml.dump(settings, opened)


def tree(folder: Path, *, without: Sequence[str] = (".kfdeploy",)) -> dict[str, bytes]:
    """Every file below a folder: relative path to its bytes; a link's target with ``->``."""
    out: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.partition("/")[0] in without:
            continue
        if path.is_symlink():
            out[name] = f"-> {path.readlink()}".encode()
        elif path.is_file():
            out[name] = path.read_bytes()
    return out


# -- made once ------------------------------------------------------------------------------------


def _made_once(folder: Path, make: Callable[[Path], Site]) -> Site:
    """What ``make`` made, by whichever process came first; a failure fails each test that asks."""
    record = folder.with_name(f"{folder.name}.json")
    with only_one(folder):
        if not record.exists():
            content: dict[str, Any]
            try:
                content = asdict(make(folder))
            except AssertionError as error:
                content = {"error": str(error)}
            record.write_text(json.dumps(content, default=str))
    content = json.loads(record.read_text())
    if "error" in content:
        pytest.fail(f"the site {folder.name} could not be made: {content['error']}", pytrace=False)
    content["root"] = Path(content["root"])
    content["refs"] = tuple(content["refs"])
    content["steps"] = {
        name: Done(**{**step, "arguments": tuple(step["arguments"])})
        for name, step in content["steps"].items()
    }
    return Site(**content)
