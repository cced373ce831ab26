"""`scan --image-content` and `scan --source`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kfdeploy.errors import FAILED
from kfdeploy.terminal import print_json, print_lines, print_warnings

if TYPE_CHECKING:
    from kfdeploy.scan.content.compare import ContentScan
    from kfdeploy.session import Session


def scan_image_content(session: Session, wanted: Sequence[str], where: str, form: str) -> None:
    """Search the contents of images for references, and print them.

    Args:
        wanted: the references of the images; empty for all programs of the catalogue.
        where: ``private``, ``daemon``, or a folder with an OCI layout.
        form: ``table``, ``json``, ``csv`` or ``refs``.

    Raises:
        Exit: 1 when an image could not be read to its end.
    """
    from kfdeploy.images import sources_file
    from kfdeploy.images.naming import MirrorNaming
    from kfdeploy.scan.content import scan as content_scan

    inventory = session.build_inventory()
    facts = session.facts.load()
    listed = sources_file.collect_source_images(inventory, session.workspace.images)
    covered = frozenset(image.ref.text for image in listed if image.covered)
    programs = [
        program
        for rendered in session.render_components()
        for program in facts.find_programs(rendered.objects)
    ]
    plan = content_scan.plan_scan(programs, covered, wanted)
    lock = session.read_lock(required=False)
    with content_scan.open_client(session.workspace, session.environment, session.root) as client:
        if where == content_scan.DAEMON:
            place = content_scan.from_docker_engine()
        elif where == content_scan.PRIVATE:
            registry = session.workspace.resolve_registry(session.environment)
            mirror = MirrorNaming(registry, session.environment.platforms)
            place = content_scan.from_private_registry(client, mirror, lock)
        else:
            place = content_scan.from_layout_folder(Path(where), lock)
        with session.progress.count_items("searching") as advance:
            scans = content_scan.scan_images(plan, place, facts, inventory, on_progress=advance)
    for image in plan.skipped:
        session.progress.print_line(f"not searched: {image}")
    _print_contents(scans, form, {"left": list(plan.skipped)})


def scan_source_checkout(folder: Path, directory: Path, env: str, quiet: bool, form: str) -> None:
    """Search a checkout for references, with the catalogue of the workspace if there is one."""
    from kfdeploy.catalogue import load
    from kfdeploy.cli.common import open_session
    from kfdeploy.scan.content import scan as content_scan

    if (directory / "kfdeploy.yaml").is_file():
        facts = open_session(directory, env, quiet).facts.load()
    else:
        facts = load.load_catalogue()
    found, origin = content_scan.scan_checkout(folder, facts)
    _print_contents([found], form, {"source": origin}, origin)


def _print_contents(
    scans: Sequence[ContentScan], form: str, more: dict[str, Any], source: str = ""
) -> None:
    from kfdeploy.cli.report import content
    from kfdeploy.scan.content import proposal

    if form == "json":
        entries = "".join(f"{line}\n" for line in proposal.propose_entries(scans, source=source))
        print_json({"images": scans, **more, "entries": entries})
    else:
        print_lines(content.format_contents(scans, form, source))
    print_warnings(content.format_problems(scans))
    if any(each.problems for each in scans):
        raise typer.Exit(FAILED)
