"""What a component renders: kustomize's build or Helm's template; cached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kfdeploy import parallel
from kfdeploy.cache import Cache
from kfdeploy.errors import UserError, raise_all
from kfdeploy.kubernetes.objects import Object, split_objects
from kfdeploy.programs import helm
from kfdeploy.upstream.kustomization import build
from kfdeploy.upstream.kustomization.graph import KustomizationGraph
from kfdeploy.upstream.kustomization.parse import FILE_NAMES
from kfdeploy.upstream.provenance.chart import ChartIndex
from kfdeploy.upstream.provenance.kustomize import ProvenanceIndex, ReachedFile
from kfdeploy.upstream.vendored import UPSTREAM, component_folder, component_kind
from kfdeploy.workspace.settings import Component, Environment


@dataclass(frozen=True)
class RenderedComponent:
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
        return tuple(split_objects(text, f"component {self.component.name}"))

    def build_index(self) -> ProvenanceIndex | ChartIndex:
        """The files that the component reaches, for looking up where a value came from."""
        if self.kind == "chart":
            values = [self.root.parent / name for name in self.component.values]
            return ChartIndex(self.root, self.folder, values, self.objects)
        graph = build.build_graph(self.root, [self.folder])
        raise_all(graph.errors)
        sources = [
            ReachedFile(path, roles) for path, roles in graph.list_files(self.folder).items()
        ]
        nodes = [graph.nodes[at] for at in graph.list_reachable(self.folder)]
        kustomizations = [(n.folder, n.file, n.kustomization) for n in nodes]
        return ProvenanceIndex(self.root, sources, kustomizations)


def render_components(
    workspace_root: Path,
    components: Sequence[Component],
    environment: Environment,
    cache: Cache,
    *,
    jobs: int = 2,
    on_done: Callable[[str], None] = lambda name: None,
    on_rendered: Callable[[RenderedComponent], None] = lambda rendered: None,
) -> tuple[RenderedComponent, ...]:
    """Render components, several at a time; the results come in the order of the components.

    Args:
        then: what is to be done with each in its thread, while programs render others.

    Raises:
        UserError: all that failed, together.
    """

    def render_one(component: Component) -> RenderedComponent:
        rendered = render_component(workspace_root, component, environment, cache)
        on_rendered(rendered)
        return rendered

    # One more than programs are to run: Python has work for each, and only one core for it.
    rendered = parallel.map_collecting_errors(
        render_one, components, max(1, jobs) + 1, lambda component: on_done(component.name)
    )
    return tuple(rendered)


def render_component(
    workspace_root: Path, component: Component, environment: Environment, cache: Cache
) -> RenderedComponent:
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
    program, options = _describe_program(kind, root / folder, component, environment)
    key, load = cache.get_or_compute(
        f"{kind} {folder}",
        [program, *options, *(cache.hash_file(workspace_root / v) for v in component.values)],
        root,
        lambda: _build_component(workspace_root, folder, kind, component, environment),
    )
    return RenderedComponent(component, kind, root, folder, key, load)


def _describe_program(
    kind: str, folder: Path, component: Component, environment: Environment
) -> tuple[str, list[str]]:
    """The program, and all besides files that its result depends on."""
    if kind == "kustomization":
        return f"kustomize {build.get_version()}", []
    return f"helm {helm.require_version()}", [
        component.name,
        component.namespace or "",
        environment.kube_version,
        *_list_files(folder, ""),  # Helm takes whatever lies in a chart
    ]


def _build_component(
    workspace_root: Path, folder: str, kind: str, component: Component, environment: Environment
) -> tuple[Iterable[str], bytes]:
    root = workspace_root / UPSTREAM
    if kind == "kustomization":
        graph = build.build_graph(root, [folder])
        raise_all(graph.errors)
        return _iter_inputs(root, graph, folder), build.build_kustomization(
            root, folder, graph=graph
        )
    data = helm.render_chart(
        root / folder,
        component.name,
        component.namespace or "default",
        values=[workspace_root / name for name in component.values],
        kube_version=environment.kube_version,
    )
    return _list_files(root, folder), data


def _iter_inputs(root: Path, graph: KustomizationGraph, folder: str) -> Iterator[str]:
    yield from graph.list_files(folder)
    for at in graph.list_reachable(folder):
        node = graph.nodes[at]
        yield from (f"{at}/{name}" for name in FILE_NAMES)
        for chart in node.charts:
            yield from _list_files(root, chart)


def _list_files(root: Path, folder: str) -> list[str]:
    return sorted(
        path.relative_to(root).as_posix() for path in (root / folder).rglob("*") if path.is_file()
    )
