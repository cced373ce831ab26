"""What other tools are told of the mirror: export."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kfdeploy.cli.common import (
    HERE,
    Check,
    Directory,
    EnvironmentName,
    OutputFormat,
    Quiet,
    app,
    open_session,
)
from kfdeploy.errors import WRONG_USE, UserError
from kfdeploy.terminal import exit_if_drift, print_json, print_lines
from kfdeploy.wording import pluralize

if TYPE_CHECKING:
    from kfdeploy.cli.session import Session
    from kfdeploy.export.delivery import DeliveryOptions
    from kfdeploy.export.material import ExportedFiles


@app.command()
def export(
    format_: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help="For nodes: hosts-toml, registries-yaml, idms. For tools that copy images:"
            " regsync, skopeo-sync, hauler, zarf. A bill of materials: cyclonedx. A release set"
            " for engines: flux, argocd. Pipelines: gitlab-ci, github-actions, containerfile. For"
            " the cluster's administrator, of release sets: rbac.",
        ),
    ] = "",
    sets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SET]...", help="flux, argocd: a set below releases/. rbac: some."),
    ] = None,
    directory: Directory = HERE,
    env: EnvironmentName = "",
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Write files below this folder.")
    ] = None,
    name: Annotated[
        str,
        typer.Option(metavar="NAME", help="flux, argocd: what their objects' names begin with."),
    ] = "kubeflow",
    namespace: Annotated[
        str, typer.Option(metavar="NAME", help="Of these objects; flux-system or argocd.")
    ] = "",
    interval: Annotated[
        str, typer.Option(metavar="TIME", help="flux: how often it looks, such as 10m.")
    ] = "10m",
    source: Annotated[
        Literal["oci", "git"],
        typer.Option(help="flux, argocd: the set as `publish` pushes it, or from --repo."),
    ] = "oci",
    tag: Annotated[
        str, typer.Option(metavar="TAG", help="Follow this tag of `publish`; else this very set.")
    ] = "",
    secret: Annotated[
        str, typer.Option(metavar="NAME", help="flux: its Secret for signing in to the source.")
    ] = "",
    repo: Annotated[
        str, typer.Option(metavar="URL", help="flux, argocd: git repository of the workspace.")
    ] = "",
    path: Annotated[str, typer.Option(metavar="DIR", help="The workspace's folder in it.")] = ".",
    revision: Annotated[
        str, typer.Option(metavar="REF", help="Branch of it, or for argocd any reference.")
    ] = "main",
    image: Annotated[
        str, typer.Option(metavar="REF", help="gitlab-ci, github-actions: what jobs run in.")
    ] = "",
    gap: Annotated[
        bool, typer.Option("--gap", help="The same: with bundles, and a file for each side.")
    ] = False,
    output: OutputFormat = "text",
    quiet: Quiet = False,
    check: Check = False,
) -> None:
    """The lock, a release set and the workspace as other tools' input; the rights of apply."""
    from kfdeploy.export import formats as stage
    from kfdeploy.export import rights
    from kfdeploy.files import write_all

    if check and to is None:
        raise UserError("--check compares files: name their folder by --to", exit_code=WRONG_USE)
    stage.check_format(format_)
    session = open_session(directory, env, quiet)
    if sets and (format_ not in stage.OF_SETS or (format_ in stage.OF_A_SET and len(sets) > 1)):
        many = "several release sets" if format_ in stage.OF_A_SET else "a release set"
        raise UserError(f"{format_} is not of {many}: leave {sets[-1]} out", exit_code=WRONG_USE)
    if format_ == rights.NAME:
        made = _export_rights(session, sets or [""], explicit=bool(env))
    elif format_ in stage.OF_A_SET:
        from kfdeploy.export.delivery import DeliveryOptions

        folder = to.resolve() if to else session.root.resolve() / format_
        options = DeliveryOptions(
            namespace=namespace,
            name=name,
            interval=interval,
            source=source,
            repository=repo,
            path=path,
            revision=revision,
            tag=tag,
            secret=secret,
            folder=os.path.relpath(folder, session.root.resolve()),
        )
        which = sets[0] if sets else ""
        made = _export_set(session, format_, which, options, explicit=bool(env))
    elif format_ in stage.OF_THE_WORKSPACE:
        from kfdeploy.export.pipelines import PipelineMaterial

        make = stage.OF_THE_WORKSPACE[format_][1]
        made = make(PipelineMaterial.for_workspace(session.workspace, image, has_gap=gap))
    else:
        made = _export_lock(session, format_)
    fresh, stale = stage.plan_changes(made, to) if to else ({}, [])
    if to and not check:
        write_all(to, fresh, remove=stale)
    if not quiet:
        sys.stderr.writelines(f"note: {note}\n" for note in made.notes)
    if output == "json":
        print_json(made.files)
    elif to is None:
        sys.stdout.write(stage.join_files(made))
    elif check:
        there = {name for name in fresh if (to / name).exists()}
        print_lines(f"{'changed' if name in there else 'new'}: {name}" for name in fresh)
        print_lines(f"stale: {name}" for name in stale)
    else:
        counts = f"{len(fresh)} written, {len(stale)} removed"
        print(f"{to}: {pluralize(len(made.files), 'file')}, {counts}")
    exit_if_drift(check, bool(fresh or stale))


def _export_lock(session: Session, format_: str) -> ExportedFiles:
    from kfdeploy.export import formats as stage
    from kfdeploy.files import read_text
    from kfdeploy.images import sources_file

    locked = session.read_lock(required=True)
    listed = session.root / sources_file.NAME
    if not listed.is_file():
        raise UserError(f"the workspace has no {sources_file.NAME} yet", hint="run `kfdeploy lock`")
    return stage.export_mirror(
        stage.FORMATS[format_][1],
        session.workspace,
        session.root,
        session.environment_name,
        locked,
        sources_file.parse_sources(read_text(listed)),
        session.known_version(),
    )


def _export_rights(session: Session, names: list[str], *, explicit: bool) -> ExportedFiles:
    from kfdeploy.export import rights
    from kfdeploy.releaseset import folder as setfolder

    found = [setfolder.open_set(session.find_set(name)) for name in names]
    for one in found:
        session.adopt_set_environment(one.summary, explicit=explicit)
    secrets = session.environment.image_pull_secrets
    return rights.export(found, session.workspace.helm.namespace, secrets)


def _export_set(
    session: Session, format_: str, name: str, options: DeliveryOptions, *, explicit: bool
) -> ExportedFiles:
    from kfdeploy.export import delivery
    from kfdeploy.export import formats as stage
    from kfdeploy.oci.reference import ImageRef
    from kfdeploy.oci.registry.access import AccessResolver
    from kfdeploy.oci.registry.ca import read_registry_ca
    from kfdeploy.releaseset import publish
    from kfdeploy.releaseset.artifact import repository_of
    from kfdeploy.releaseset.folder import open_set

    delivery.check_options(
        options,
        {"--name": options.name, "--namespace": options.namespace, "--secret": options.secret},
    )
    found = open_set(session.find_set(name))
    session.adopt_set_environment(found.summary, explicit=explicit)
    registry = session.workspace.resolve_registry(session.environment)
    reach = AccessResolver(session.mirror_settings, session.root)(registry.host)
    place = repository_of(registry.host, registry.prefix)
    packed = publish.pack_set(found)
    return stage.OF_A_SET[format_][1](
        delivery.Delivery(
            release_set=found,
            artifact=ImageRef(
                place.host, place.path, publish.set_content_tag(found), packed.digest
            ),
            is_plain=reach.plain_http,
            skips_verify=reach.skip_tls_verify and not reach.plain_http,
            ca=read_registry_ca(registry, session.root),
            helm_namespace=session.workspace.helm.namespace,
            options=options,
        )
    )
