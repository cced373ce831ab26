"""`mirror` from registry to registry, with what was read already: nothing large is imported for it.

It is reached in two ways, and is the same in both: by the command line and the settings' model, or,
where an earlier run left a note of what the settings say, by `kfdeploy.cli.mirror_fast_path`.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kfdeploy.cache import Cache
from kfdeploy.cli import mirror_fast_path
from kfdeploy.cli.progress import Progress
from kfdeploy.errors import DIFFERENCE, DONE, FAILED
from kfdeploy.files import alone
from kfdeploy.images import lockfile
from kfdeploy.images.lockfile import Lock
from kfdeploy.mirror import mirror as stage
from kfdeploy.mirror.plan import Plan, Summary
from kfdeploy.oci.registry.client import manifest_path
from kfdeploy.oci.registry.settings import MirrorSettings
from kfdeploy.terminal import print_errors, print_json, print_lines

if TYPE_CHECKING:
    from kfdeploy.cli.mirror_fast_path import Noted
    from kfdeploy.mirror.mirror import Sides


@dataclass(frozen=True, slots=True)
class How:
    """The command's options."""

    jobs: int = stage.JOBS
    dry_run: bool = False
    check: bool = False
    output: Literal["text", "json"] = "text"


def from_note(noted: Noted) -> int | None:
    """Mirror with the settings that a note has; returns the exit code.

    None where the note does not do: the usual way is gone then, and nothing was done yet.

    Raises:
        UserError: see `mirror`.
    """
    try:
        settings = MirrorSettings.parse(noted.settings)
    except (KeyError, TypeError, AttributeError):
        return None
    if not settings.may_be_noted:
        return None
    how = How(noted.jobs, output="json" if noted.output == "json" else "text")
    lock = lockfile.read(noted.root / "images.lock")
    progress = Progress(quiet=noted.quiet)
    answered = noted.answered()
    return mirror(noted.root, settings, lock, noted.env, progress, how, answered=answered)


def mirror(
    root: Path,
    settings: MirrorSettings,
    lock: Lock,
    env: str,
    progress: Progress,
    how: How,
    *,
    by_tag: Container[str] = (),
    answered: Container[tuple[str, str]] = (),
) -> int:
    """Bring the lock's images into the private registry, and print what became of it.

    Args:
        env: as ``--env`` named it; empty for none.
        by_tag, answered: see `stage.plan`.

    Returns:
        The exit code.

    Raises:
        UserError: there is no plan; see `stage.plan`. Or another mirror is at work.
    """
    cache = Cache(root / ".kfdeploy" / "cache")
    with stage.opened(settings, root, cache) as sides:
        plan = stage.plan(
            lock,
            settings,
            client=sides.client,
            jobs=how.jobs,
            by_tag=by_tag,
            answered=answered,
        )
        if how.dry_run or how.check:
            if how.output == "json":
                print_json(plan.to_json())
            else:
                print_lines(plan.lines())
            return DIFFERENCE if how.check and plan.to_copy else DONE
        with (
            alone(root / ".kfdeploy" / "mirror.lock", "another `kfdeploy mirror`"),
            progress.mirroring() as (watch, on_tick),
        ):
            summary = stage.run(
                plan,
                sides.origin,
                sides.destination,
                jobs=how.jobs,
                known=stage.places(plan, sides),
                watch=watch,
                stop=sides.client.close,
                on_tick=on_tick,
            )
        if not summary.failed:
            _remember(root, settings, env, sides, plan)
    print_errors([failed.error for failed in summary.failed])
    if how.output == "json":
        print_json(summary.to_json())
    else:
        print_lines(summary.lines())
    return FAILED if summary.failed else DONE


def _remember(root: Path, settings: MirrorSettings, env: str, sides: Sides, plan: Plan) -> None:
    """Note what the settings say, and that there is nothing to do any more, for the next run."""
    if not settings.may_be_noted:
        return
    reach = sides.client.reach(settings.private.host)
    is_open = sides.client.exchange.is_open(reach.host) and not reach.skip_tls_verify
    there = [replace(item, state="present", replaces="") for item in plan.items]
    summary = Summary((), tuple(there), ())
    mirror_fast_path.remember(
        root,
        env,
        settings.to_json(),
        reach.url if is_open else "",
        None if reach.ca is None else str(reach.ca.absolute()),
        {manifest_path(item.destination): item.digest for item in there},
        "\n".join(summary.lines()) + "\n",
        summary.to_json(),
    )
