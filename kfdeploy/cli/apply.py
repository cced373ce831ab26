"""A release set and a cluster: apply, destroy."""

from __future__ import annotations

from contextlib import contextmanager
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
from kfdeploy.terminal import complain, print_json, print_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfdeploy.session import Session
    from kfdeploy.tools.cluster import Cluster
    from kfdeploy.tools.setfolder import SetFolder

SetName = Annotated[str, typer.Argument(metavar="[SET]", help="A set below releases/.")]


@app.command()
def apply(
    name: SetName = "",
    directory: Directory = HERE,
    env: EnvironmentName = "",
    release: Annotated[
        list[str] | None,
        typer.Option("--release", metavar="NAME", help="Only this one; it may be given again."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="The API server tries each object; nothing changes.")
    ] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Objects that were made without Helm become its.")
    ] = False,
    on_failure: Annotated[
        Literal["leave", "rollback"] | None,
        typer.Option("--on-failure", help="What becomes of a release that fails."),
    ] = None,
    timeout: Annotated[
        int | None, typer.Option("--timeout", metavar="SECONDS", min=1, help="For each wait.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=64, help="Helm processes.")] = 4,
    output: OutputFormat = "text",
    quiet: Quiet = False,
) -> None:
    """Helmfile applies a release set: one pass, wave by wave."""
    from kfdeploy import show_apply
    from kfdeploy.model.applying import Outcomes
    from kfdeploy.pipeline import apply_plan
    from kfdeploy.pipeline.apply import Applying
    from kfdeploy.tools import lease

    session = open_session(directory, env, quiet)
    release_set = _whole_set(session, name, env)
    chosen = _chosen(release_set, release or [])
    helm = session.workspace.helm
    say = session.progress.line
    with _connected(session) as cluster:
        apply_plan.make_namespace(cluster, helm.namespace, dry_run=dry_run)
        with lease.hold(cluster, helm.namespace, say) as held:
            steps = apply_plan.plan(
                cluster, release_set, helm.namespace, lambda c, r: {}, only=chosen
            )
            for line in steps.lines():
                say(line)
            outcomes = Outcomes()
            applying = Applying(
                cluster,
                release_set,
                helm.namespace,
                held,
                seconds=timeout or helm.timeout,
                jobs=jobs,
                on_failure=on_failure or helm.on_failure,
                say=say,
                told=show_apply.Waits(say).told,
            )
            applying.run(steps, outcomes)
    if output == "json":
        print_json({"set": release_set.name, **outcomes.to_json()})
    else:
        print_lines(show_apply.lines(release_set.name, outcomes))
    if not outcomes.is_good:
        complain(show_apply.failures(outcomes))
        raise typer.Exit(FAILED)


def _whole_set(session: Session, name: str, env: str) -> SetFolder:
    """A set that is as it was rendered, and for this environment."""
    from kfdeploy.tools import setfolder

    found = setfolder.open_set(session.find_set(name))
    session.must_be_of(found.summary, explicit=bool(env))
    if altered := list(found.altered()):
        raise UserError(
            f"releases/{found.name}: not as it was rendered: {'; '.join(altered[:5])}",
            hint="run `kfdeploy render`; what should stay belongs into patches/",
            exit_code=DIFFERENCE,
        )
    return found


def _chosen(release_set: SetFolder, names: list[str]) -> list[str]:
    there = [release.name for release in release_set.releases]
    if unknown := [name for name in names if name not in there]:
        raise UserError(
            f"--release {unknown[0]}: the set has {', '.join(there)}", exit_code=WRONG_USE
        )
    return names


@contextmanager
def _connected(session: Session) -> Iterator[Cluster]:
    from kfdeploy.tools import cluster

    with cluster.connect(session.environment.kube_context) as opened:
        yield opened
