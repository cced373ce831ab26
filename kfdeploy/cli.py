"""The commands: each gathers, calls a stage, writes and prints.

Stages are imported by the commands that need them: `kfdeploy --help` starts at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

# First, so that ^C while modules are read is answered as later.
from kfdeploy import __version__, cli_export, terminal
from kfdeploy.errors import DIFFERENCE, FAILED, WRONG_USE, UserError
from kfdeploy.terminal import (
    complain,
    counted,
    exit_if_drift,
    print_errors,
    print_json,
    print_lines,
)

import typer  # isort: skip


if TYPE_CHECKING:
    from kfdeploy.session import Session

app = typer.Typer(
    name="kfdeploy",
    help="Kubeflow, delivered by Helmfile, where there is no internet.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Output = Literal["text", "json"]
Directory = Annotated[Path, typer.Option("-C", "--directory", metavar="DIR", help="The workspace.")]
EnvironmentName = Annotated[
    str, typer.Option("--env", metavar="NAME", help="The environment in kfdeploy.yaml.")
]
OutputFormat = Annotated[Output, typer.Option("--output", help="What goes to stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Check = Annotated[
    bool, typer.Option("--check", help="Write nothing; exit 3 when something would change.")
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, max=64, help="How many at a time.")]
HERE = Path()


def main() -> NoReturn:
    """Run the command line."""
    terminal.run(lambda: app(standalone_mode=False))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"kfdeploy {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="The new workspace.")] = HERE,
    upstream: Annotated[
        str, typer.Option("--upstream", metavar="DIR_OR_GIT_URL", help="Kubeflow's manifests.")
    ] = "",
    ref: Annotated[str, typer.Option("--ref", help="Tag, branch or commit.")] = "",
    remotes: Annotated[
        Path | None, typer.Option("--remotes", metavar="DIR", help="Folders that answer for hosts.")
    ] = None,
    registry: Annotated[
        str, typer.Option("--registry", metavar="HOST[/PREFIX]", help="The private registry.")
    ] = "",
    features: Annotated[str, typer.Option("--features", help="all, none, or A,B.")] = "none",
    output: OutputFormat = "text",
    quiet: Quiet = False,
    check: Check = False,
) -> None:
    """A new workspace with a commented kfdeploy.yaml."""
    from kfdeploy.files import write_all
    from kfdeploy.pipeline import init as stage

    if not upstream:
        raise UserError(
            "--upstream is missing",
            hint="name the folder, tarball or git URL of Kubeflow's manifests",
            exit_code=WRONG_USE,
        )
    if features != "none":
        raise UserError(
            f"--features {features}: this version of kfdeploy has no features yet",
            exit_code=WRONG_USE,
        )
    made = stage.init(folder, upstream, ref=ref or None, remotes=remotes, registry=registry or None)
    if not check:
        kept = [".gitignore"] if (folder / ".gitignore").exists() else []
        write_all(folder, {n: text for n, text in made.files.items() if n not in kept})
    for problem in made.problems:
        print(f"note: {problem.where}: {problem.what}", file=sys.stderr)
    if output == "json":
        print_json(
            {
                "workspace": str(folder),
                "version": made.version,
                "components": [{"name": c.name, "path": c.path} for c in made.components],
                "problems": [{"what": p.what, "where": p.where} for p in made.problems],
            }
        )
    else:
        where = folder / "kfdeploy.yaml"
        print(f"{where}: {counted(len(made.components), 'component')} of {made.version}")
        if not quiet:
            print(f"next: kfdeploy vendor -C {folder}")
    if check:
        raise typer.Exit(DIFFERENCE)


@app.command()
def vendor(
    directory: Directory = HERE,
    output: OutputFormat = "text",
    quiet: Quiet = False,
    check: Check = False,
) -> None:
    """A complete local upstream: every remote base and URL, recorded."""
    from kfdeploy.files import uninterrupted
    from kfdeploy.pipeline import vendor as stage

    session = _session(directory, quiet=quiet)
    plan = stage.vendor(
        session.workspace, session.root, locate=session.locate, step=session.progress.line
    )
    changes = stage.check(plan, session.root)
    if not check:
        with uninterrupted():
            stage.write(plan, session.root)
    for problem in plan.problems:
        print(f"note: {problem.where}: {problem.what}", file=sys.stderr)
    if output == "json":
        print_json(
            {
                "version": plan.lock.upstream.version,
                "files": len(plan.files),
                "remotes": [{"url": r.url, "path": r.path} for r in plan.lock.remotes],
                "changes": list(changes),
            }
        )
    elif check:
        print_lines(changes)
    else:
        remotes = len(plan.lock.remotes)
        print(f"upstream/: {len(plan.files)} files; {counted(remotes, 'remote')}")
    exit_if_drift(check, bool(changes))


@app.command()
def scan(
    directory: Directory = HERE,
    env: EnvironmentName = "",
    format_: Annotated[
        Literal["table", "json", "csv", "refs"], typer.Option("--format", help="How it is shown.")
    ] = "table",
    output: OutputFormat = "text",
    quiet: Quiet = False,
) -> None:
    """Every image, with where it was found."""
    from kfdeploy import show

    session = _session(directory, env, quiet)
    inventory = session.inventory()
    if output == "json" or format_ == "json":
        print_json(inventory.to_json())
    else:
        print_lines(show.inventory(inventory, format_))
    if format_ == "table" and output == "text":
        for problem in inventory.problems:
            print(f"note: {problem.where}: {problem.what}", file=sys.stderr)


@app.command()
def why(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A reference, or a part of one.")],
    directory: Directory = HERE,
    env: EnvironmentName = "",
    output: OutputFormat = "text",
    quiet: Quiet = False,
) -> None:
    """Each place that names an image, with file and line, and what redirects it."""
    from kfdeploy import show

    session = _session(directory, env, quiet)
    images = show.matching(session.inventory(), image)
    if not images:
        raise UserError(
            f"{image}: nothing in this workspace names it",
            hint="`kfdeploy scan --format refs` lists the images",
        )
    if output == "json":
        print_json({"images": [found.to_json() for found in images]})
    else:
        print_lines(show.why(images))


@app.command()
def lock(
    directory: Directory = HERE,
    env: EnvironmentName = "",
    jobs: Jobs = 8,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask nobody: only what is known by digest.")
    ] = False,
    output: OutputFormat = "text",
    quiet: Quiet = False,
    check: Check = False,
) -> None:
    """Tags to digests: images.lock, and images.sources.yaml beside it."""
    from kfdeploy import show
    from kfdeploy.files import write_all
    from kfdeploy.model import lockfile, sources
    from kfdeploy.pipeline import lock as stage

    session = _session(directory, env, quiet)
    inventory = session.inventory()
    previous = session.lock(required=False)
    images = sources.listed(inventory, session.workspace.images)
    with session.progress.counting("locking") as advance:
        result = stage.resolve(
            [image.ref for image in images if image.covered],
            session.workspace,
            root=session.root,
            environment=session.environment,
            previous=previous,
            jobs=jobs,
            offline=offline,
            on_event=lambda event: advance(event.id, event.done, event.total),
        )
    kept = session.still_locked([failure.id for failure in result.failures], previous)
    locked = lockfile.Lock((*result.lock, *kept.values()))
    texts = {
        "images.lock": lockfile.dumps(locked),
        sources.NAME: sources.dump(inventory, images),
    }
    changed = [name for name, text in texts.items() if session.differs(name, text)]
    if not check:
        write_all(session.root, texts)
    for ref in sorted(i.ref for i in images if not i.covered):
        session.progress.line(f"not covered: {ref}")
    for moved in result.moved:
        print(f"note: {moved.id}: was {moved.before}, is {moved.now}", file=sys.stderr)
    for note in result.notes:
        session.progress.line(f"no size known: {note.id}: {note.reason}")
    complain(show.not_locked(result.failures, inventory, kept))
    if output == "json":
        print_json({**result.to_json(), "kept": sorted(kept), "changed": changed})
    else:
        print(
            f"images.lock: {counted(len(result.lock), 'image')} locked, {len(result.failures)} not"
            + (f" ({len(kept)} of them as before)" if kept else "")
        )
    if result.failures:
        raise typer.Exit(FAILED)
    exit_if_drift(check, bool(changed))


@app.command()
def mirror(
    directory: Directory = HERE,
    env: EnvironmentName = "",
    jobs: Jobs = 4,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan.")] = False,
    output: OutputFormat = "text",
    quiet: Quiet = False,
    check: Annotated[
        bool, typer.Option("--check", help="Print the plan; exit 3 when an image is to be copied.")
    ] = False,
) -> None:
    """Images into the private registry."""
    from kfdeploy.pipeline import mirror as stage

    session = _session(directory, env, quiet)
    locked = session.lock(required=True)
    with stage.opened(session.workspace, session.environment, session.root) as client:
        plan = stage.plan(
            locked, session.workspace, session.environment, client=client, jobs=max(jobs, 8)
        )
        if dry_run or check:
            if output == "json":
                print_json(plan.to_json())
            else:
                print_lines(plan.lines())
            exit_if_drift(check, bool(plan.to_copy))
            return
        with session.progress.bytes("mirroring") as on_event:
            summary = stage.run(plan, client=client, jobs=jobs, on_event=on_event)
    print_errors([failed.error for failed in summary.failed])
    if output == "json":
        print_json(summary.to_json())
    else:
        print_lines(summary.lines())
    if summary.failed:
        raise typer.Exit(FAILED)


@app.command()
def patch(
    directory: Directory = HERE,
    env: EnvironmentName = "",
    output: OutputFormat = "text",
    quiet: Quiet = False,
    check: Check = False,
) -> None:
    """patches/ and helmfile.yaml.gotmpl."""
    from kfdeploy.files import write_all
    from kfdeploy.pipeline import patch as stage

    session = _session(directory, env, quiet)
    inventory = session.inventory()
    made = stage.generate(session.workspace, session.root, inventory, session.rendered())
    drift = stage.compare(session.root, made)
    if not check:
        wanted = {name: made.files[name] for name in (*drift.new, *drift.changed)}
        write_all(session.root, wanted, remove=drift.stale)
    for name in drift.edited:
        print(
            f"error: {name}: edited by hand; it is left as it is\n"
            "  hint: take its first line off and give it a name of its own to keep it,"
            " or delete it to have it generated again",
            file=sys.stderr,
        )
    if output == "json":
        print_json({"files": sorted(made.files), **drift.to_json()})
    elif check:
        print_lines(drift.lines())
    else:
        written = len(drift.new) + len(drift.changed)
        print(
            f"patches/: {counted(len(made.files), 'file')}, {written} written,"
            f" {len(drift.stale)} removed"
        )
    if drift.edited:
        raise typer.Exit(DIFFERENCE)
    exit_if_drift(check, not drift.is_clean)


@app.command()
def render(
    directory: Directory = HERE,
    env: EnvironmentName = "",
    set_name: Annotated[
        str, typer.Option("--set", metavar="NAME", help="The set's name; the environment's.")
    ] = "",
    unpinned: Annotated[
        bool, typer.Option("--unpinned", help="Images that are not locked go by their tag.")
    ] = False,
    jobs: Jobs = 2,
    output: OutputFormat = "text",
    quiet: Quiet = False,
    check: Check = False,
) -> None:
    """A release set: all that apply needs, pinned, and nothing from outside."""
    from kfdeploy import files
    from kfdeploy.pipeline import render as stage

    session = _session(directory, env, quiet)
    name = session.set_name(set_name)
    made = stage.render(
        session.workspace,
        session.root,
        session.environment_name,
        session.rendered(jobs),
        session.sources(),
        session.lock(required=not unpinned),
        session.version,
        session.cache,
        unpinned=unpinned,
        jobs=jobs,
    )
    target = session.root / "releases" / name
    changed = files.tree_differs(target, made.files)
    if changed and not check:
        files.replace_tree(target, made.files)
    if output == "json":
        print_json({"set": f"releases/{name}", "changed": changed, **made.summary})
    else:
        objects = sum(release.objects + release.crd_count for release in made.releases)
        print(
            f"releases/{name}: {counted(len(made.releases), 'release')}, {objects} objects,"
            f" {counted(len(made.summary['images']), 'image')}"
        )
        if made.summary["unpinned"]:
            print(f"  by tag only: {counted(len(made.summary['unpinned']), 'image')}")
    exit_if_drift(check, changed)


@app.command()
def verify(
    name: Annotated[str, typer.Argument(metavar="[SET]", help="A set below releases/.")] = "",
    directory: Directory = HERE,
    env: EnvironmentName = "",
    offline: Annotated[bool, typer.Option("--offline", help="All but the registry.")] = False,
    output: OutputFormat = "text",
    quiet: Quiet = False,
) -> None:
    """The set is whole, its images are mirrored, and nothing in it leads elsewhere."""
    from contextlib import nullcontext

    from kfdeploy.pipeline import mirror
    from kfdeploy.pipeline import verify as stage

    session = _session(directory, env, quiet)
    folder = session.find_set(name)
    summary = stage.read_summary(folder)
    session.must_be_of(summary, explicit=bool(env))
    client = (
        nullcontext(None)
        if offline
        else mirror.opened(session.workspace, session.environment, session.root)
    )
    with client as opened:
        report = stage.verify(
            folder, summary, client=opened, uncovered=session.workspace.registries.uncovered
        )
    complain(f"error: {text}" for text in report.failures)
    complain(f"error: {found} leads elsewhere" for found in report.foreign)
    for note in report.notes:
        session.progress.line(f"note: {note}")
    if output == "json":
        print_json(report.to_json())
    else:
        state = "verified" if report.is_good else "not fit"
        asked = "" if report.asked else "; the registry was not asked"
        print(f"releases/{folder.name}: {state}: {counted(report.images, 'image')}{asked}")
    if not report.is_good:
        raise typer.Exit(DIFFERENCE)


app.command()(cli_export.export)


@app.command()
def doctor(
    directory: Directory = HERE,
    env: EnvironmentName = "",
    output: OutputFormat = "text",
    quiet: Quiet = False,
) -> None:
    """What is missing on this machine or behind these credentials, and how to get it."""
    from kfdeploy.pipeline import doctor as stage

    findings = list(stage.programs())
    if (directory / "kfdeploy.yaml").exists():
        findings += stage.workspace(lambda: _session(directory, env, quiet))
    if output == "json":
        print_json({"findings": [finding.to_json() for finding in findings]})
    else:
        for finding in findings:
            print(f"{finding.state:8} {finding.what}: {finding.detail}")
            if finding.mend and finding.state != "ok":
                print(f"         {finding.mend}")
    if any(finding.is_bad for finding in findings):
        raise typer.Exit(FAILED)


@app.command()
def schema() -> None:
    """The JSON Schema of kfdeploy.yaml, for editors."""
    from kfdeploy.pipeline.init import schema as text

    sys.stdout.write(text())


def _session(directory: Path, env: str = "", quiet: bool = False) -> Session:
    from kfdeploy.session import Session

    return Session.open(directory, env, quiet=quiet)


if __name__ == "__main__":
    main()
