"""`mirror` from registry to registry. It imports nothing large.

It is called in two ways: by the command, after the settings were read; or by `mirror_fast_path`,
with the settings that an earlier run noted in the cache.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kfdeploy.cache import Cache
from kfdeploy.cli import mirror_fast_path
from kfdeploy.cli.mirror_progress import watch_mirror
from kfdeploy.codec import MisfitData, pack, to_json, unpack
from kfdeploy.errors import DIFFERENCE, DONE, FAILED
from kfdeploy.files import exclusive_lock
from kfdeploy.images import lockfile
from kfdeploy.images.lockfile import Lock
from kfdeploy.mirror import mirror
from kfdeploy.mirror.plan import MirrorPlan, MirrorSummary
from kfdeploy.oci.reference import WrittenRef
from kfdeploy.oci.registry.client import manifest_path
from kfdeploy.oci.registry.settings import MirrorSettings
from kfdeploy.progress import Progress
from kfdeploy.terminal import print_errors, print_json, print_lines

if TYPE_CHECKING:
    from kfdeploy.cli.mirror_fast_path import CachedMirror
    from kfdeploy.mirror.mirror import MirrorEndpoints


@dataclass(frozen=True, slots=True)
class MirrorOptions:
    """Hold the command's options."""

    jobs: int = mirror.JOBS
    dry_run: bool = False
    check: bool = False
    output: Literal["text", "json"] = "text"


def mirror_from_cache(cached: CachedMirror) -> int | None:
    """Mirror with the settings that an earlier run noted.

    Returns:
        The exit code; None where the note can't be used, and nothing was done.

    Raises:
        UserError: see `mirror_lock`.
    """
    try:
        settings = unpack(MirrorSettings, cached.settings)
    except MisfitData:
        return None
    if not settings.is_cacheable:
        return None
    options = MirrorOptions(cached.jobs, output="json" if cached.output == "json" else "text")
    lock = lockfile.read_lock(cached.root / "images.lock")
    progress = Progress(quiet=cached.quiet)
    answered = cached.read_answers()
    return mirror_lock(
        cached.root, settings, lock, cached.env, progress, options, known_present=answered
    )


def mirror_lock(
    root: Path,
    settings: MirrorSettings,
    lock: Lock,
    env: str,
    progress: Progress,
    options: MirrorOptions,
    *,
    by_tag: Container[WrittenRef] = (),
    known_present: Container[tuple[str, str]] = (),
) -> int:
    """Copy the images of the lock into the private registry, and print the result.

    Args:
        env: the value of ``--env``; empty for none.
        by_tag: references that some place names by tag alone.
        known_present: paths and digests of manifests that the registry has just named.

    Returns:
        The exit code.

    Raises:
        UserError: there is no plan (see `plan_mirror`), or another mirror is running.
    """
    cache = Cache(root / ".kfdeploy" / "cache")
    with mirror.open_endpoints(settings, root, cache) as sides:
        plan = mirror.plan_mirror(
            lock,
            settings,
            client=sides.client,
            jobs=options.jobs,
            by_tag=by_tag,
            answered=known_present,
        )
        if options.dry_run or options.check:
            if options.output == "json":
                print_json(plan)
            else:
                print_lines(plan.format_lines())
            return DIFFERENCE if options.check and plan.to_copy else DONE
        with (
            exclusive_lock(root / ".kfdeploy" / "mirror.lock", "another `kfdeploy mirror`"),
            watch_mirror(progress) as (watch, on_tick),
        ):
            summary = mirror.run_mirror(
                plan,
                sides.origin,
                sides.destination,
                jobs=options.jobs,
                known=mirror.find_known_places(plan, sides),
                progress=watch,
                stop=sides.client.close,
                on_tick=on_tick,
            )
        if not summary.failed:
            _cache_mirror(root, settings, env, sides, plan)
    print_errors([failed.error for failed in summary.failed])
    if options.output == "json":
        print_json(summary)
    else:
        print_lines(summary.format_lines())
    return FAILED if summary.failed else DONE


def _cache_mirror(
    root: Path, settings: MirrorSettings, env: str, sides: MirrorEndpoints, plan: MirrorPlan
) -> None:
    """Note the settings, and that there is nothing left to do, for the next run."""
    if not settings.is_cacheable:
        return
    reach = sides.client.get_access(settings.private.host)
    is_open = sides.client.transport.allows_anonymous(reach.host) and not reach.skip_tls_verify
    there = [replace(item, state="present", replaces="") for item in plan.items]
    summary = MirrorSummary((), tuple(there), ())
    mirror_fast_path.cache_mirror(
        root,
        env,
        pack(settings),
        reach.url if is_open else "",
        None if reach.ca is None else str(reach.ca.absolute()),
        {manifest_path(item.destination): item.digest for item in there},
        "\n".join(summary.format_lines()) + "\n",
        to_json(summary),
    )
