"""A release set and a cluster: apply, destroy."""

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
    app,
    open_session,
)
from kfdeploy.errors import DIFFERENCE, FAILED, WRONG_USE, UserError
from kfdeploy.terminal import print_json, print_lines, print_warnings
from kfdeploy.wording import pluralize

if TYPE_CHECKING:
    from kfdeploy.apply.divergence import DivergenceFinder
    from kfdeploy.apply.preflight.preflight import PreflightReport
    from kfdeploy.apply.steps import ApplyPlan
    from kfdeploy.kubernetes.cluster.client import Cluster
    from kfdeploy.releaseset.folder import SetFolder
    from kfdeploy.session import Session

SetName = Annotated[str, typer.Argument(metavar="[SET]", help="A set below releases/.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command()
def apply(
    name: SetName = "",
    directory: Directory = HERE,
    env: EnvironmentName = "",
    release: Annotated[
        list[str] | None,
        typer.Option("--release", metavar="NAME", help="Only this one; repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="The API server tries each object; nothing changes.")
    ] = False,
    take_over: Annotated[
        bool,
        typer.Option("--take-over", help="Objects made without Helm become the releases' own."),
    ] = False,
    on_failure: Annotated[
        Literal["leave", "rollback"] | None,
        typer.Option("--on-failure", help="What becomes of a release that fails; helm.onFailure."),
    ] = None,
    timeout: Annotated[
        int | None,
        typer.Option("--timeout", metavar="SECONDS", min=1, help="For each wait; helm.timeout."),
    ] = None,
    skip_registry: Annotated[
        bool, typer.Option("--skip-registry", help="Do not look whether images are mirrored.")
    ] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=64, help="Helm processes.")] = 4,
    output: OutputFormat = "text",
    quiet: Quiet = False,
) -> None:
    """Helmfile applies a release set: one pass, wave by wave."""
    from kfdeploy.apply import plan
    from kfdeploy.apply.apply import SetApplier
    from kfdeploy.apply.steps import ApplyResult
    from kfdeploy.cli.report import apply as show_apply
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
                on_progress=show_apply.WaitReporter(say).report_waiting,
            ).run(steps, outcomes)
    if output == "json":
        print_json({"set": release_set.name, "plan": steps, **outcomes.to_json()})
    else:
        print_lines(show_apply.format_outcomes(release_set.name, outcomes))
    if not outcomes.is_good:
        print_warnings(show_apply.format_failures(outcomes))
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
            help="A Namespace, claim, Profile or CustomResourceDefinition of the set that goes,"
            " with all that is in it; it may be given again.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Yes = False,
    output: OutputFormat = "text",
    quiet: Quiet = False,
) -> None:
    """Take a set out of its cluster; what users have made stays."""
    from kfdeploy.apply import destroy as stage
    from kfdeploy.kubernetes.cluster import client as cluster
    from kfdeploy.kubernetes.cluster import lease

    session = open_session(directory, env, quiet)
    release_set = _open_unaltered_set(session, name, env)
    namespace, say = session.workspace.helm.namespace, session.progress.print_line
    with cluster.connect(session.environment.kube_context) as opened:
        what = stage.plan_destroy(opened, release_set, namespace, delete_data or [])
        if output != "json":
            print_lines(what.format_lines())
        goes = bool(what.releases or what.data) and not dry_run
        if goes and not yes and not _confirm_destroy(output):
            print("nothing was removed: `kfdeploy destroy --yes` does", file=sys.stderr)
            goes = False
        if goes:
            with lease.hold_lease(opened, namespace, say) as held:
                stage.destroy_set(
                    opened, what, namespace, held, session.workspace.helm.timeout, say
                )
    if output == "json":
        print_json({"set": release_set.name, "removed": goes, **what.to_json()})
    else:
        what_goes = pluralize(len(what.releases), "release")
        if what.data:
            what_goes += f" and {pluralize(len(what.data), 'object')} of data"
        if not what.releases and not what.data:
            print(f"releases/{release_set.name}: nothing of it is in the cluster")
        else:
            print(f"releases/{release_set.name}: {what_goes} {'removed' if goes else 'would go'}")


def _confirm_destroy(output: str) -> bool:
    if output == "json" or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return typer.confirm("remove all of this from the cluster?")


def _open_unaltered_set(session: Session, name: str, env: str) -> SetFolder:
    """A set that is as it was rendered, and for this environment."""
    from kfdeploy.releaseset import body_cache, folder

    found = folder.open_set(session.find_set(name))
    session.adopt_set_environment(found.summary, explicit=bool(env))
    if altered := list(found.list_alterations()):
        raise UserError(
            f"releases/{found.name}: not as it was rendered: {'; '.join(altered[:5])}",
            hint="run `kfdeploy render`; what should stay belongs into patches/",
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
    """Say what would be done, and try each object of it."""
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
            f" {len(untried)} can't be told before what they need is there"
        )
    print_warnings(f"error: {one.release}: {one.key}: {one.refused}" for one in refused)
    if refused:
        raise typer.Exit(FAILED)
