"""`mirror --prune`: what no kept release set needs leaves the private registry."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from kfdeploy.cli.session import Session
from kfdeploy.errors import FAILED
from kfdeploy.images import lockfile
from kfdeploy.images.lockfile import Lock
from kfdeploy.mirror import mirror
from kfdeploy.mirror import prune as mirror_prune
from kfdeploy.mirror.plan import Item, wanted_items
from kfdeploy.terminal import counted, print_errors, print_json, print_lines


def prune(session: Session, *, yes: bool, output: str) -> None:
    """List what could go; delete it when that is said, or confirmed on a terminal."""
    registry = session.workspace.registry(session.environment)
    with mirror.asking(session.mirror_settings, session.root) as client:
        found = mirror_prune.find(client, registry.host, registry.prefix, _kept(session))
        if found.note:
            session.progress.line(f"note: {found.note}")
        if output != "json":
            print_lines([one.line() for one in found.obsolete])
        goes = bool(found.obsolete) and (yes or _confirmed(len(found.obsolete), output))
        deleted: list[mirror_prune.Obsolete] = []
        failures = mirror_prune.delete(client, found.obsolete, deleted.append) if goes else []
    print_errors(failures)
    if output == "json":
        print_json({**found.to_json(), "deleted": [one.to_json() for one in deleted]})
    else:
        images = counted(len(found.obsolete), "manifest")
        rest = f"; {counted(found.kept, 'image')} kept in {found.looked_at} repositories looked at"
        if goes:
            print(
                f"{len(deleted)} of {images} deleted{rest}\n"
                "the registry's own garbage collection frees the disk"
            )
        else:
            print(f"{images} no longer needed{rest}")
            if found.obsolete:
                print("nothing was deleted: `kfdeploy mirror --prune --yes` does")
    if failures:
        raise typer.Exit(FAILED)


def _kept(session: Session) -> list[Item]:
    """What the workspace's lock and those of all its release sets need in this registry."""
    workspace = session.workspace
    sources = workspace.registries.sources
    here = workspace.registry(session.environment)
    locks = [session.root / "images.lock", *session.root.glob("releases/*/images.lock")]
    found: list[Item] = []
    for environment in workspace.environments.values():
        registry = workspace.registry(environment)
        if (registry.host, registry.prefix) != (here.host, here.prefix):
            continue
        for path in filter(Path.is_file, locks):
            # A lock from before an environment's platforms were named has nothing of it.
            lock = Lock([i for i in lockfile.read(path) if i.digest_for(environment.platforms)])
            found += wanted_items(lock, registry, sources, environment.platforms)
    return found


def _confirmed(count: int, output: str) -> bool:
    if output == "json" or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return typer.confirm(f"delete {counted(count, 'manifest')} from the registry?")
