"""A first `kfdeploy.yaml`, with comments, from what an upstream's example installs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kfdeploy.errors import WRONG_USE, UserError
from kfdeploy.features.registry import FEATURES
from kfdeploy.oci.reference import ImageRef, InvalidImageRef
from kfdeploy.upstream.component import ExampleComponent, UpstreamProblem
from kfdeploy.upstream.example import read_example
from kfdeploy.upstream.remotes import map_hosts
from kfdeploy.upstream.source import is_url, read_source
from kfdeploy.workspace.settings_file import WORKSPACE_FILE
from kfdeploy.yamltext.emit import quote_scalar

TEMPLATES = Path(__file__).parent / "templates"
SCHEMA = "kfdeploy.schema.json"


@dataclass(frozen=True)
class InitialWorkspace:
    """The files of a new workspace, and what the example does that is not taken over."""

    files: Mapping[str, str]
    components: Sequence[ExampleComponent]
    version: str
    problems: tuple[UpstreamProblem, ...]


@dataclass(frozen=True, slots=True)
class _FeatureSection:
    """A feature's section of the file, which is commented out where the feature is off."""

    text: str
    enabled: bool


def plan_workspace(
    root: Path,
    upstream: str,
    *,
    ref: str | None = None,
    remotes: Path | None = None,
    registry: str | None = None,
    features: Sequence[str] = (),
) -> InitialWorkspace:
    """The files of a workspace at ``root``; nothing is written but the cache of git.

    Raises:
        UserError: there is one already; the upstream can't be read; a registry that is none.
    """
    if (root / WORKSPACE_FILE).exists():
        raise UserError(
            f"{root / WORKSPACE_FILE} is there already",
            hint="edit it, or name another folder: kfdeploy init DIR; --upgrade moves it to another"
            " release",
            exit_code=WRONG_USE,
        )
    given = format_upstream_source(upstream, root)
    # A folder is read where it is: the workspace, which its path is relative to, may not be there.
    there = upstream if is_url(upstream) else str(Path(upstream).expanduser().resolve())
    source = read_source(there, ref, root, root / ".kfdeploy" / "git")
    example = read_example(source.tree)
    host, prefix = _parse_registry(registry)
    text = _render_settings(
        source=quote_scalar(given),
        ref=quote_scalar(ref) if ref else None,
        remotes=[(quote_scalar(p), quote_scalar(f)) for p, f in find_host_remotes(remotes, root)],
        components=example.components,
        sections=[
            _FeatureSection(kind.read_init_text(), enabled=kind.name in features)
            for kind in FEATURES
        ],
        host=quote_scalar(host) if host else None,
        prefix=quote_scalar(prefix) if prefix else None,
    )
    return InitialWorkspace(
        {WORKSPACE_FILE: text, SCHEMA: dump_schema(), ".gitignore": "/.kfdeploy/\n"},
        example.components,
        source.version,
        example.problems,
    )


def format_upstream_source(upstream: str, root: Path) -> str:
    """How a workspace's `upstream.source` names what ``--upstream`` does.

    Raises:
        UserError: a folder or tarball that is not there.
    """
    return upstream if is_url(upstream) else _make_relative(Path(upstream), root)


def parse_features(given: str) -> tuple[str, ...]:
    """The features that ``--features`` asks for: ``all``, ``none``, or names divided by commas.

    Raises:
        UserError: a name that is none, or one of a later version.
    """
    known = tuple(kind.name for kind in FEATURES)
    if given in ("all", "none"):
        return known if given == "all" else ()
    names = tuple(name.strip() for name in given.split(","))
    for name in names:
        if name not in known:
            raise UserError(
                f"--features {given}: {name or 'an empty name'} is no feature of this version",
                hint=f"all, none, or of: {', '.join(known)}",
                exit_code=WRONG_USE,
            )
    return names


def dump_schema() -> str:
    """The JSON Schema of ``kfdeploy.yaml``, from the same model that reads it."""
    import json

    from kfdeploy.workspace.settings import Workspace

    content = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": WORKSPACE_FILE,
        **Workspace.model_json_schema(),
    }
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def _render_settings(**values: object) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    text = (TEMPLATES / "kfdeploy.yaml.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render(**values)


def _make_relative(path: Path, root: Path) -> str:
    """A path that resolves from the workspace, wherever both are moved together."""
    if not path.expanduser().exists():
        raise UserError(
            f"{path}: there is no such folder or tarball",
            hint="--upstream takes a folder, a tarball or a git URL",
            exit_code=WRONG_USE,
        )
    return Path(os.path.relpath(path.expanduser().resolve(), root.resolve())).as_posix()


def find_host_remotes(folder: Path | None, root: Path) -> list[tuple[str, str]]:
    """Entries of `upstream.remotes`: each host that has a folder in ``folder`` is answered for.

    Raises:
        UserError: there is no such folder, or none in it that is named as a host.
    """
    if folder is None:
        return []
    if not folder.is_dir():
        raise UserError(f"--remotes {folder}: there is no such folder", exit_code=WRONG_USE)
    found = map_hosts(folder, _make_relative(folder, root))
    if not found:
        raise UserError(
            f"--remotes {folder}: it holds no folder named as a host, such as github.com",
            exit_code=WRONG_USE,
        )
    return sorted(found.items())


def _parse_registry(registry: str | None) -> tuple[str, str]:
    if not registry:
        return "", ""
    host, _, prefix = registry.strip("/").partition("/")
    try:
        parsed = ImageRef.parse(f"{host}/{prefix or 'x'}/x")
    except InvalidImageRef as error:
        raise UserError(f"--registry {registry}: no HOST[/PREFIX]", exit_code=WRONG_USE) from error
    if parsed.host != host:
        raise UserError(
            f"--registry {registry}: a registry host needs a dot, a port, or to be localhost",
            exit_code=WRONG_USE,
        )
    return host, prefix
