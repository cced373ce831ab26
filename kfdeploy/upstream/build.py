"""What a component renders: kustomize's build or Helm's template; cached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kfdeploy.cache import Cache
from kfdeploy.errors import UserError, raise_all
from kfdeploy.kubernetes.objects import Object, split
from kfdeploy.programs import helm
from kfdeploy.upstream.kustomization import build
from kfdeploy.upstream.kustomization.graph import Graph
from kfdeploy.upstream.kustomization.parse import FILE_NAMES
from kfdeploy.upstream.provenance.chart import ChartIndex
from kfdeploy.upstream.provenance.kustomize import Index, Source
from kfdeploy.upstream.vendored import UPSTREAM, component_folder, component_kind
from kfdeploy.workspace.settings import Component, Environment


@dataclass(frozen=True)
class Rendered:
    """What one component renders.

    ``kind`` is how it is built: as a kustomization or a chart. ``folder`` is relative to
    ``upstream/``; ``key`` sums up all that went in.
    """

    component: Component
    kind: str
    root: Path
    folder: str
    key: str
    _load: Callable[[], bytes]

    @cached_property
    def objects(self) -> tuple[Object, ...]:
        """In the order they were rendered."""
        text = self._load().decode("utf-8")
        return tuple(split(text, f"component {self.component.name}"))

    def index(self) -> Index | ChartIndex:
        """The files that the component reaches, for looking up where a value came from."""
        if self.kind == "chart":
            values = [self.root.parent / name for name in self.component.values]
            return ChartIndex(self.root, self.folder, values, self.objects)
        graph = build.walk(self.root, [self.folder])
        raise_all(graph.errors)
        sources = [Source(path, roles) for path, roles in graph.files(self.folder).items()]
        nodes = [graph.nodes[at] for at in graph.reached(self.folder)]
        kustomizations = [(n.folder, n.file, n.kustomization) for n in nodes]
        return Index(self.root, sources, kustomizations)


def render_all(
    workspace_root: Path,
    components: Sequence[Component],
    environment: Environment,
    cache: Cache,
    *,
    jobs: int = 2,
    done: Callable[[str], None] = lambda name: None,
    then: Callable[[Rendered], None] = lambda rendered: None,
) -> tuple[Rendered, ...]:
    """Render components, several at a time; the results come in the order of the components.

    Args:
        then: what is to be done with each in its thread, while programs render others.

    Raises:
        UserError: all that failed, together.
    """

    def one(component: Component) -> Rendered:
        rendered = render(workspace_root, component, environment, cache)
        then(rendered)
        return rendered

    # One more than programs are to run: Python has work for each, and only one core for it.
    with ThreadPoolExecutor(max_workers=max(1, jobs) + 1) as pool:
        futures = [pool.submit(one, component) for component in components]
        results: list[Rendered] = []
        errors: list[UserError] = []
        try:
            for component, future in zip(components, futures, strict=True):
                try:
                    results.append(future.result())
                except UserError as error:
                    errors += error.each()
                done(component.name)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    raise_all(errors)
    return tuple(results)


def render(
    workspace_root: Path, component: Component, environment: Environment, cache: Cache
) -> Rendered:
    """Render one component, or find it in the cache.

    Raises:
        UserError: nothing at its path, a broken file, a program that fails.
    """
    root = workspace_root / UPSTREAM
    try:
        kind = component_kind(workspace_root, component)
    except UserError as error:
        raise UserError(f"component {component.name}: {error.message}", hint=error.hint) from error
    folder = component_folder(workspace_root, component)
    if kind == "manifests":
        kind = "kustomization"  # `vendor` put one around them
    program, options = _program(kind, root / folder, component, environment)
    key, load = cache.from_files(
        f"{kind} {folder}",
        [program, *options, *(cache.sum_of(workspace_root / v) for v in component.values)],
        root,
        lambda: _compute(workspace_root, folder, kind, component, environment),
    )
    return Rendered(component, kind, root, folder, key, load)


def _program(
    kind: str, folder: Path, component: Component, environment: Environment
) -> tuple[str, list[str]]:
    """The program, and all besides files that its result depends on."""
    if kind == "kustomization":
        return f"kustomize {build.version()}", []
    return f"helm {helm.version()}", [
        component.name,
        component.namespace or "",
        environment.kube_version,
        *_files(folder, ""),  # Helm takes whatever lies in a chart
    ]


def _compute(
    workspace_root: Path, folder: str, kind: str, component: Component, environment: Environment
) -> tuple[Iterable[str], bytes]:
    root = workspace_root / UPSTREAM
    if kind == "kustomization":
        graph = build.walk(root, [folder])
        raise_all(graph.errors)
        return _inputs(root, graph, folder), build.build(root, folder, graph=graph)
    data = helm.template(
        root / folder,
        component.name,
        component.namespace or "default",
        values=[workspace_root / name for name in component.values],
        kube_version=environment.kube_version,
    )
    return _files(root, folder), data


def _inputs(root: Path, graph: Graph, folder: str) -> Iterator[str]:
    yield from graph.files(folder)
    for at in graph.reached(folder):
        node = graph.nodes[at]
        yield from (f"{at}/{name}" for name in FILE_NAMES)
        for chart in node.charts:
            yield from _files(root, chart)


def _files(root: Path, folder: str) -> list[str]:
    return sorted(
        path.relative_to(root).as_posix() for path in (root / folder).rglob("*") if path.is_file()
    )
