"""`scan --image-content` and `scan --source`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kfdeploy.errors import FAILED
from kfdeploy.terminal import complain, print_json, print_lines

if TYPE_CHECKING:
    from kfdeploy.cli.session import Session
    from kfdeploy.scan.content.compare import Looked


def look_into_images(session: Session, wanted: Sequence[str], where: str, form: str) -> None:
    """Look into images, print what is found; exits 1 when one could not be read whole.

    Args:
        where: ``private``, ``daemon``, or a folder with an OCI layout.
        form: ``table``, ``json``, ``csv`` or ``refs``.
    """
    from kfdeploy.images import sources_file
    from kfdeploy.images.naming import Mirror
    from kfdeploy.scan.content import scan as stage

    inventory = session.inventory()
    facts = session.facts.catalogue()
    listed = sources_file.listed(inventory, session.workspace.images)
    covered = frozenset(image.ref for image in listed if image.covered)
    programs = [
        program for rendered in session.rendered() for program in facts.programs(rendered.objects)
    ]
    plan = stage.plan(programs, covered, wanted)
    lock = session.lock(required=False)
    with stage.opened(session.workspace, session.environment, session.root) as client:
        if where == stage.DAEMON:
            place = stage.engine()
        elif where == stage.PRIVATE:
            registry = session.workspace.registry(session.environment)
            mirror = Mirror(registry, session.environment.platforms)
            place = stage.private(client, mirror, lock)
        else:
            place = stage.folder(Path(where), lock)
        with session.progress.counting("looking into") as advance:
            looked = stage.look(plan, place, facts, inventory, tell=advance)
    for image in plan.left:
        session.progress.line(f"not looked into: {image}")
    _print(looked, form, {"left": list(plan.left)})


def look_into_source(folder: Path, directory: Path, env: str, quiet: bool, form: str) -> None:
    """Look into a checkout; with a workspace's own catalogue and manifests where there is one."""
    from kfdeploy.catalogue import load
    from kfdeploy.cli.common import open_session
    from kfdeploy.scan.content import scan as stage

    if (directory / "kfdeploy.yaml").is_file():
        facts = open_session(directory, env, quiet).facts.catalogue()
    else:
        facts = load.load()
    looked, origin = stage.source(folder, facts)
    _print([looked], form, {"source": origin}, origin)


def _print(looked: Sequence[Looked], form: str, more: dict[str, Any], source: str = "") -> None:
    from kfdeploy.cli.report import content
    from kfdeploy.scan.content import proposal

    if form == "json":
        entries = "".join(f"{line}\n" for line in proposal.entries(looked, source=source))
        print_json({"images": [one.to_json() for one in looked], **more, "entries": entries})
    else:
        print_lines(content.lines(looked, form, source))
    complain(content.problems(looked))
    if any(one.problems for one in looked):
        raise typer.Exit(FAILED)
