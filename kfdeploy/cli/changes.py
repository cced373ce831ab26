"""The commands that compare: diff, audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kfdeploy.cli.common import (
    HERE,
    Directory,
    EnvironmentName,
    Quiet,
    SetName,
    app,
    open_session,
)
from kfdeploy.errors import DIFFERENCE, WRONG_USE, UserError
from kfdeploy.terminal import print_json, print_lines

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from kfdeploy.kubernetes.cluster.client import Cluster
    from kfdeploy.releaseset.folder import SetFolder
    from kfdeploy.session import Session


Report = Annotated[
    Literal["text", "json", "markdown"],
    typer.Option(
        "--output", help="The form of the result on stdout; markdown is for a merge request."
    ),
]
WithCluster = Annotated[
    bool, typer.Option("--cluster", help="Compare with the environment's cluster.")
]


@app.command()
def diff(
    old: Annotated[
        str, typer.Argument(metavar="OLD", help="A release set: its name or its folder.")
    ] = "",
    new: Annotated[str, typer.Argument(metavar="NEW", help="Another release set.")] = "",
    with_cluster: WithCluster = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="PART", help="Print only this part, such as plan; repeatable."
        ),
    ] = None,
    directory: Directory = HERE,
    env: EnvironmentName = "",
    output: Report = "text",
    quiet: Quiet = False,
) -> None:
    """Compare two release sets: what an upgrade changes, recreates and deletes.

    With --cluster, compare one set with its cluster: what is missing, changed or not its own.
    """
    _check_arguments(old, new, with_cluster=with_cluster, only=only or [])
    session = open_session(directory, env, quiet)
    if with_cluster:
        different = _compare_with_cluster(session, old, env, output)
    else:
        different = _compare_sets(session, old, new, only or [], output)
    if different:
        raise typer.Exit(DIFFERENCE)


def _check_arguments(old: str, new: str, *, with_cluster: bool, only: list[str]) -> None:
    from kfdeploy.cli.report import set_diff

    if with_cluster and new:
        raise UserError("--cluster compares one release set: OLD", exit_code=WRONG_USE)
    if with_cluster and only:
        raise UserError("--only is for two release sets: leave --cluster out", exit_code=WRONG_USE)
    if not with_cluster and not (old and new):
        raise UserError(
            "diff takes two release sets, OLD and NEW, or one with --cluster",
            exit_code=WRONG_USE,
        )
    for part in only:
        if part not in set_diff.section_names():
            raise UserError(
                f"--only {part}: there is no such part",
                hint=f"there are {', '.join(set_diff.section_names())}",
                exit_code=WRONG_USE,
            )


def _compare_sets(session: Session, old: str, new: str, only: list[str], output: str) -> bool:
    from kfdeploy.apply import cluster_diff
    from kfdeploy.cli.report import set_diff

    found = cluster_diff.diff_sets(session.find_set(old), session.find_set(new), session.cache)
    if output == "json":
        print_json(found)
    else:
        show = set_diff.format_markdown if output == "markdown" else set_diff.format_text
        print_lines(show(found, only))
    return not found.is_empty


def _compare_with_cluster(session: Session, name: str, env: str, output: str) -> bool:
    from kfdeploy.apply import cluster_diff
    from kfdeploy.cli.report import divergence

    release_set, cluster = _open_set_and_cluster(session, name, env)
    with cluster as opened:
        found = cluster_diff.diff_cluster(
            opened, release_set, session.workspace.helm.namespace, session.cache
        )
    if output == "json":
        print_json(found)
    else:
        print_lines(
            (divergence.format_markdown if output == "markdown" else divergence.format_text)(found)
        )
    return not found.is_empty


def _open_set_and_cluster(
    session: Session, name: str, env: str
) -> tuple[SetFolder, AbstractContextManager[Cluster]]:
    """Open a set, and connect to the cluster of the environment that it was rendered for."""
    from kfdeploy.kubernetes.cluster import client as cluster
    from kfdeploy.releaseset.folder import open_set

    release_set = open_set(session.find_set(name))
    session.adopt_set_environment(release_set.summary, explicit=bool(env))
    return release_set, cluster.connect(session.environment.kube_context)


audit = typer.Typer(
    name="audit",
    help="Compare what is with what should be.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(audit)


@audit.command()
def images(
    name: SetName = "",
    with_cluster: WithCluster = False,
    everywhere: Annotated[
        bool,
        typer.Option(
            "--all-namespaces", help="Include pods that do not belong to the set and its users."
        ),
    ] = False,
    directory: Directory = HERE,
    env: EnvironmentName = "",
    output: Report = "text",
    quiet: Quiet = False,
) -> None:
    """Compare the images that pods run with the lock."""
    from kfdeploy.apply import audit as image_audit
    from kfdeploy.cli.report import audit as audit_report

    if not with_cluster:
        raise UserError(
            "audit images asks the cluster: add --cluster",
            hint="`kfdeploy verify` checks the images of a set without a cluster",
            exit_code=WRONG_USE,
        )
    session = open_session(directory, env, quiet)
    release_set, cluster = _open_set_and_cluster(session, name, env)
    uncovered = session.workspace.registries.uncovered
    with cluster as opened:
        found = image_audit.audit_images(opened, release_set, uncovered, everywhere=everywhere)
    if output == "json":
        print_json(found)
    else:
        print_lines(audit_report.format_audit(found, output))
    if not found.is_good:
        raise typer.Exit(DIFFERENCE)
