"""The commands for a release set in a cluster: apply, destroy."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kfdeploy.cli.common import (
    HERE,
    Directory,
    EnvironmentName,
    OutputFormat,
    Quiet,
    SetName,
    app,
    open_session,
)
from kfdeploy.errors import DIFFERENCE, FAILED, WRONG_USE, UserError
from kfdeploy.terminal import print_json, print_lines, print_warnings
from kfdeploy.wording import pluralize

if TYPE_CHECKING:
    from kfdeploy.apply.destroy import DestroyPlan
    from kfdeploy.apply.divergence import DivergenceFinder
    from kfdeploy.apply.preflight.preflight import PreflightReport
    from kfdeploy.apply.steps import ApplyPlan
    from kfdeploy.kubernetes.cluster.client import Cluster
    from kfdeploy.releaseset.folder import SetFolder
    from kfdeploy.session import Session

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command()
def apply(
    name: SetName = "",
    directory: Directory = HERE,
    env: EnvironmentName = "",
    release: Annotated[
        list[str] | None,
        typer.Option("--release", metavar="NAME", help="Apply only this release; repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the API server try each object; change nothing.")
    ] = False,
    take_over: Annotated[
        bool,
        typer.Option("--take-over", help="Adopt objects that were made without Helm."),
    ] = False,
    on_failure: Annotated[
        Literal["leave", "rollback"] | None,
        typer.Option(
            "--on-failure", help="What to do with a release that fails. Without it: helm.onFailure."
        ),
    ] = None,
    timeout: Annotated[
        int | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=1,
            help="The limit of each wait. Without it: helm.timeout.",
        ),
    ] = None,
    skip_registry: Annotated[
        bool, typer.Option("--skip-registry", help="Do not check whether images are mirrored.")
    ] = False,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, max=64, help="The number of Helm processes at a time.")
    ] = 4,
    output: OutputFormat = "text",
    quiet: Quiet = False,
) -> None:
    """Apply a release set with Helmfile, in one pass, wave by wave."""
    from kfdeploy.apply import plan
    from kfdeploy.apply.apply import SetApplier
    from kfdeploy.apply.steps import ApplyResult
    from kfdeploy.cli.report import apply as apply_report
    from kfdeploy.kubernetes.cluster import client as cluster
    from kfdeploy.kubernetes.cluster import lease
    from kfdeploy.programs import helm, helmfile

    session = open_session(directory, env, quiet)
    release_set = _open_unaltered_set(session, name, env)
    chosen = _select_releases(release_set, release or [])
    helm.require_version()
    helmfile.require_version()
    settings, say = session.workspace.helm, session.progress.print_line
    with cluster.connect(session.environment.kube_context) as opened:
        ready = _run_preflight(session, opened, release_set, take_over, skip_registry)
        if ready.errors:
            _refuse_apply(ready, output)
        find_divergences = _make_divergence_reader(session, opened)
        if dry_run:
            steps = plan.plan_apply(
                opened, release_set, settings.namespace, find_divergences, only=chosen
            )
            _rehearse_steps(opened, release_set, steps, ready, output)
            return
        for line in ready.format_lines():
            say(line)
        plan.ensure_namespace(opened, settings.namespace)
        with lease.hold_lease(opened, settings.namespace, say) as held:
            steps = plan.plan_apply(
                opened, release_set, settings.namespace, find_divergences, only=chosen
            )
            for line in steps.format_lines():
                say(line)
            outcomes = ApplyResult()
            SetApplier(
                opened,
                release_set,
                settings.namespace,
                held,
                find_divergences,
                seconds=timeout or settings.timeout,
                jobs=jobs,
                on_failure=on_failure or settings.on_failure,
                say=say,
                on_progress=apply_report.WaitReporter(say).report_waiting,
            ).run(steps, outcomes)
    if output == "json":
        print_json({"set": release_set.name, "plan": steps, **outcomes.to_json()})
    else:
        print_lines(apply_report.format_outcomes(release_set.name, outcomes))
    if not outcomes.is_good:
        print_warnings(apply_report.format_failures(outcomes))
        raise typer.Exit(FAILED)


@app.command()
def destroy(
    name: SetName = "",
    directory: Directory = HERE,
    env: EnvironmentName = "",
    delete_data: Annotated[
        list[str] | None,
        typer.Option(
            "--delete-data",
            metavar="[KIND/[NAMESPACE/]]NAME",
            help="Delete this Namespace, claim, Profile or CustomResourceDefinition of the set,"
            " with all that is in it; repeatable.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be removed.")
    ] = False,
    yes: Yes = False,
    output: OutputFormat = "text",
    quiet: Quiet = False,
) -> None:
    """Remove a release set from its cluster; what users have made stays."""
    from kfdeploy.apply import destroy as removal
    from kfdeploy.kubernetes.cluster import client as cluster
    from kfdeploy.kubernetes.cluster import lease

    session = open_session(directory, env, quiet)
    release_set = _open_unaltered_set(session, name, env)
    namespace, say = session.workspace.helm.namespace, session.progress.print_line
    with cluster.connect(session.environment.kube_context) as opened:
        plan = removal.plan_destroy(opened, release_set, namespace, delete_data or [])
        if output != "json":
            print_lines(plan.format_lines())
        is_wanted = bool(plan.releases or plan.data) and not dry_run
        will_remove = is_wanted and (yes or _confirm_destroy(output))
        if is_wanted and not will_remove:
            print("nothing was removed: run the same command with --yes", file=sys.stderr)
        if will_remove:
            with lease.hold_lease(opened, namespace, say) as held:
                timeout = session.workspace.helm.timeout
                removal.destroy_set(opened, plan, namespace, held, timeout, say)
    if output == "json":
        print_json({"set": release_set.name, "removed": will_remove, **plan.to_json()})
    else:
        print(f"releases/{release_set.name}: {_summarize_destroy(plan, will_remove)}")


def _summarize_destroy(plan: DestroyPlan, was_removed: bool) -> str:
    if not plan.releases and not plan.data:
        return "nothing of it is in the cluster"
    removed = pluralize(len(plan.releases), "release")
    if plan.data:
        removed += f" and {pluralize(len(plan.data), 'object')} of data"
    return f"{removed} {'removed' if was_removed else 'would be removed'}"


def _confirm_destroy(output: str) -> bool:
    if output == "json" or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return typer.confirm("remove all of this from the cluster?")


def _open_unaltered_set(session: Session, name: str, env: str) -> SetFolder:
    """Open a set that is unchanged since `render`, and switch to its environment.

    Raises:
        UserError: no such set, one of another environment, or one with changed files.
    """
    from kfdeploy.releaseset import body_cache, folder

    found = folder.open_set(session.find_set(name))
    session.adopt_set_environment(found.summary, explicit=bool(env))
    if altered := list(found.list_alterations()):
        raise UserError(
            f"releases/{found.name}: changed since it was rendered: {'; '.join(altered[:5])}",
            hint="run `kfdeploy render`; put changes that should stay into patches/",
            exit_code=DIFFERENCE,
        )
    for release in found.releases:
        body_cache.load_bodies((*release.crds, *release.objects), session.cache)
    return found


def _select_releases(release_set: SetFolder, names: list[str]) -> list[str]:
    there = [release.name for release in release_set.releases]
    if unknown := [name for name in names if name not in there]:
        raise UserError(
            f"--release {unknown[0]}: the set has {', '.join(there)}", exit_code=WRONG_USE
        )
    return names


def _run_preflight(
    session: Session,
    cluster: Cluster,
    release_set: SetFolder,
    take_over: bool,
    skip_registry: bool,
) -> PreflightReport:
    from kfdeploy.apply.preflight import preflight
    from kfdeploy.mirror import mirror

    asking = (
        nullcontext(None)
        if skip_registry
        else mirror.open_client(session.mirror_settings, session.root)
    )
    with asking as client:
        return preflight.run_preflight(
            cluster,
            release_set,
            preflight.PreflightOptions(
                namespace=session.workspace.helm.namespace,
                registry_client=client,
                take_over=take_over,
                pull_secrets=session.environment.image_pull_secrets,
            ),
        )


def _refuse_apply(ready: PreflightReport, output: str) -> None:
    if output == "json":
        print_json({"done": False, "preflight": ready})
    print_warnings(ready.format_lines())
    raise typer.Exit(FAILED)


def _make_divergence_reader(session: Session, cluster: Cluster) -> DivergenceFinder:
    from kfdeploy.apply import divergence

    namespace = session.workspace.helm.namespace
    return lambda releases: divergence.find_divergences(
        cluster, releases, cache=session.cache, namespace=namespace
    )


def _rehearse_steps(
    cluster: Cluster, release_set: SetFolder, steps: ApplyPlan, ready: PreflightReport, output: str
) -> None:
    """Print the plan, and let the API server try each object of it."""
    from kfdeploy.apply import dry_run as rehearsal

    acting = {step.release for step in steps.steps if step.has_changes}
    releases = [release for release in release_set.releases if release.name in acting]
    skip = {one.key for step in steps.steps for one in step.recreate}
    tried = rehearsal.dry_run_releases(cluster, releases, skip)
    refused = [one for one in tried if one.refused]
    untried = [one for one in tried if one.untried]
    if output == "json":
        print_json(
            {
                "set": release_set.name,
                "preflight": ready,
                "plan": steps,
                "tried": len(tried) - len(untried),
                "refused": refused,
                "untried": untried,
            }
        )
    else:
        print_lines(ready.format_lines())
        print_lines(steps.format_lines())
        print(
            f"{pluralize(len(tried) - len(untried), 'object')} tried, {len(refused)} refused,"
            f" {len(untried)} can't be tried before what they need is there"
        )
    print_warnings(f"error: {one.release}: {one.key}: {one.refused}" for one in refused)
    if refused:
        raise typer.Exit(FAILED)
