"""Render components with kustomize or Helm, and cache the results."""

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
    """The rendered objects of one component.

    Attributes:
        component: The component.
        kind: How it is built: ``kustomization`` or ``chart``.
        root: The path of ``upstream/``.
        folder: The folder that is built, relative to ``root``.
        key: A digest of all inputs.
    """

    component: Component
    kind: str
    root: Path
    folder: str
    key: str
    _load: Callable[[], bytes]

    @cached_property
    def objects(self) -> tuple[Object, ...]:
        """The objects in the order that the program printed them."""
        text = self._load().decode("utf-8")
        return tuple(split_objects(text, f"component {self.component.name}"))

    def build_index(self) -> ProvenanceIndex | ChartIndex:
        """Return an index of the component's files that finds the line a value is from.

        Raises:
            UserError: A kustomization is broken or a reference leads nowhere.
        """
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
    """Render components, several at a time. The results are in the order of the components.

    Args:
        workspace_root: The workspace's folder.
        components: The components to render.
        environment: Has the Kubernetes version that Helm renders for.
        cache: Has the results of earlier runs.
        jobs: How many programs run at a time.
        on_done: Called with the name of each component that is finished.
        on_rendered: Called with each result in its thread, while programs render others.

    Raises:
        UserError: Components failed. It lists all their errors.
    """

    def render_one(component: Component) -> RenderedComponent:
        rendered = render_component(workspace_root, component, environment, cache)
        on_rendered(rendered)
        return rendered

    # One thread more than programs: Python itself has work for each, on only one core.
    rendered = parallel.map_collecting_errors(
        render_one, components, max(1, jobs) + 1, lambda component: on_done(component.name)
    )
    return tuple(rendered)


def render_component(
    workspace_root: Path, component: Component, environment: Environment, cache: Cache
) -> RenderedComponent:
    """Render one component, or take it from the cache.

    Raises:
        UserError: Its folder does not exist, a file is broken, or the program fails.
    """
    root = workspace_root / UPSTREAM
    try:
        kind = component_kind(workspace_root, component)
    except UserError as error:
        raise UserError(f"component {component.name}: {error.message}", hint=error.hint) from error
    folder = component_folder(workspace_root, component)
    if kind == "manifests":
        kind = "kustomization"  # `vendor` generated one that lists the manifests
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
    """Return the program with its version, and the inputs besides files."""
    if kind == "kustomization":
        return f"kustomize {build.get_version()}", []
    return f"helm {helm.require_version()}", [
        component.name,
        component.namespace or "",
        environment.kube_version,
        *_list_files(folder, ""),  # Helm reads every file in a chart
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
