"""`mirror --prune`: images that no kept release set needs are deleted from the registry."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from kfdeploy.errors import FAILED
from kfdeploy.images import lockfile
from kfdeploy.images.lockfile import Lock
from kfdeploy.mirror import mirror
from kfdeploy.mirror import prune as mirror_prune
from kfdeploy.mirror.plan import MirrorItem, list_mirror_items
from kfdeploy.session import Session
from kfdeploy.terminal import print_errors, print_json, print_lines
from kfdeploy.wording import pluralize


def prune_registry(session: Session, *, yes: bool, output: str) -> None:
    """List what no kept release set needs; delete it with --yes, or after a question."""
    registry = session.workspace.resolve_registry(session.environment)
    with mirror.open_client(session.mirror_settings, session.root) as client:
        found = mirror_prune.find_obsolete(
            client, registry.host, registry.prefix, _list_kept_items(session)
        )
        if found.note:
            session.progress.print_line(f"note: {found.note}")
        if output != "json":
            print_lines([manifest.format_line() for manifest in found.obsolete])
        will_delete = bool(found.obsolete) and (
            yes or _confirm_deletion(len(found.obsolete), output)
        )
        deleted: list[mirror_prune.ObsoleteManifest] = []
        failures = (
            mirror_prune.delete_manifests(client, found.obsolete, deleted.append)
            if will_delete
            else []
        )
    print_errors(failures)
    if output == "json":
        print_json({**found.to_json(), "deleted": deleted})
    else:
        images = pluralize(len(found.obsolete), "manifest")
        rest = f"; {pluralize(found.kept, 'image')} kept in {found.looked_at} repositories"
        if will_delete:
            print(
                f"{len(deleted)} of {images} deleted{rest}\n"
                "the garbage collection of the registry frees the disk"
            )
        else:
            print(f"{images} no longer needed{rest}")
            if found.obsolete:
                print("nothing was deleted: run the same command with --yes")
    if failures:
        raise typer.Exit(FAILED)


def _list_kept_items(session: Session) -> list[MirrorItem]:
    """List what the locks of the workspace and its release sets need in this registry."""
    workspace = session.workspace
    sources = workspace.registries.sources
    here = workspace.resolve_registry(session.environment)
    locks = [session.root / "images.lock", *session.root.glob("releases/*/images.lock")]
    found: list[MirrorItem] = []
    for environment in workspace.environments.values():
        registry = workspace.resolve_registry(environment)
        if (registry.host, registry.prefix) != (here.host, here.prefix):
            continue
        for path in filter(Path.is_file, locks):
            # A lock from before the environment named platforms has no index for them.
            lock = Lock(
                [i for i in lockfile.read_lock(path) if i.digest_for(environment.platforms)]
            )
            found += list_mirror_items(lock, registry, sources, environment.platforms)
    return found


def _confirm_deletion(count: int, output: str) -> bool:
    if output == "json" or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return typer.confirm(f"delete {pluralize(count, 'manifest')} from the registry?")
