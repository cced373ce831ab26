"""One release of the upstream in a workspace: vendored, rendered and scanned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kfdeploy.file_tree import FolderTree
from kfdeploy.images import sources_file
from kfdeploy.images.inventory import Inventory
from kfdeploy.images.sources_file import SourceImage
from kfdeploy.kubernetes.objects import Object
from kfdeploy.oci.reference import WrittenRef
from kfdeploy.session import Session
from kfdeploy.upstream import vendor
from kfdeploy.upstream.vendored import UPSTREAM, detect_kind
from kfdeploy.workspace import settings_file
from kfdeploy.workspace.settings import Workspace


@dataclass(frozen=True)
class ScannedRelease:
    """One release of the upstream, rendered and scanned."""

    session: Session
    inventory: Inventory
    images: Sequence[SourceImage]

    @property
    def refs(self) -> set[WrittenRef]:
        return {image.ref for image in self.images}

    @property
    def objects(self) -> Mapping[str, Sequence[Object]]:
        rendered = self.session.render_components()
        return {item.component.name: item.objects for item in rendered}


@dataclass(frozen=True)
class VendoredRelease:
    """The new release's session, what vendoring changes in ``upstream/``, and its problems."""

    session: Session
    changes: Sequence[str]
    problems: Sequence[tuple[str, str]]


def scan_release(session: Session, settings: Workspace) -> ScannedRelease:
    inventory = session.build_inventory()
    images = sources_file.collect_source_images(inventory, settings.images)
    return ScannedRelease(session, inventory, images)


def vendor_release(session: Session, folder: Path) -> VendoredRelease:
    """Vendor what the new ``kfdeploy.yaml`` in the folder names, into the folder."""
    file = settings_file.read_workspace(folder)
    plan = vendor.plan_vendoring(
        file.workspace,
        session.root,
        locate=file.locate_key,
        on_progress=session.progress.print_line,
    )
    changes = vendor.list_plan_changes(plan, session.root)
    vendor.write_plan(plan, folder)
    with_values = replace(file, workspace=_resolve_value_paths(file.workspace, session.root))
    return VendoredRelease(
        Session(folder, with_values, session.environment_name, session.progress),
        changes,
        [(problem.message, problem.where) for problem in plan.problems],
    )


def _resolve_value_paths(workspace: Workspace, root: Path) -> Workspace:
    """Name Helm's values, which are not copied, by their place in the real workspace."""
    components = tuple(
        component.model_copy(
            update={"values": tuple(str((root / path).absolute()) for path in component.values)}
        )
        for component in workspace.components
    )
    return workspace.model_copy(update={"components": components})


def open_release_before(session: Session) -> Session:
    """Open the release before, without components that its ``upstream/`` does not have."""
    tree = FolderTree(session.root / UPSTREAM)
    components = tuple(
        component
        for component in session.workspace.components
        if detect_kind(tree, component.path, component.kind)
    )
    workspace = session.workspace.model_copy(update={"components": components})
    file = replace(session.file, workspace=workspace)
    return Session(session.root, file, session.environment_name, session.progress)
