"""Write a first `kfdeploy.yaml`, with comments, from what an upstream's example installs."""

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
    """The files of a new workspace.

    Attributes:
        files: Path in the workspace to its text.
        components: The components that the example lists, in its order.
        version: The upstream's version.
        problems: What the example does that is not taken over.
    """

    files: Mapping[str, str]
    components: Sequence[ExampleComponent]
    version: str
    problems: tuple[UpstreamProblem, ...]


@dataclass(frozen=True, slots=True)
class _FeatureSection:
    """A feature's section of the file. It is commented out when the feature is off."""

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
    """Return the files of a new workspace. Only the git cache below ``root`` is written.

    Args:
        root: The folder of the workspace. It need not exist.
        upstream: A folder, a tarball or a git URL.
        ref: A tag, branch or commit of the upstream.
        remotes: A folder with a subfolder per host (``github.com``) that has the remote bases.
        registry: The mirror, as ``HOST[/PREFIX]``.
        features: Names of the features to turn on.

    Raises:
        UserError: The folder has a workspace, the upstream can't be read, or the registry or the
            remotes are not valid.
    """
    if (root / WORKSPACE_FILE).exists():
        raise UserError(
            f"{root / WORKSPACE_FILE} already exists",
            hint="edit it, choose another folder (kfdeploy init DIR), or use --upgrade to move it"
            " to another release",
            exit_code=WRONG_USE,
        )
    given = format_upstream_source(upstream, root)
    # The given path is relative to the workspace, which may not exist yet: make it absolute.
    location = upstream if is_url(upstream) else str(Path(upstream).expanduser().resolve())
    source = read_source(location, ref, root, root / ".kfdeploy" / "git")
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
    """Return the value of `upstream.source` in a workspace for a value of ``--upstream``.

    A URL stays as it is; a path is made relative to the workspace ``root``.

    Raises:
        UserError: The folder or tarball does not exist.
    """
    return upstream if is_url(upstream) else _make_relative(Path(upstream), root)


def parse_features(given: str) -> tuple[str, ...]:
    """Return the feature names for ``--features``: ``all``, ``none``, or names with commas.

    Raises:
        UserError: This version has no feature of that name.
    """
    known = tuple(kind.name for kind in FEATURES)
    if given in ("all", "none"):
        return known if given == "all" else ()
    names = tuple(name.strip() for name in given.split(","))
    for name in names:
        if name not in known:
            raise UserError(
                f"--features {given}: this version has no feature {name or '(empty name)'}",
                hint=f"give all, none, or some of: {', '.join(known)}",
                exit_code=WRONG_USE,
            )
    return names


def dump_schema() -> str:
    """Return the JSON Schema of ``kfdeploy.yaml``, made from the model that reads the file."""
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
    environment.filters["quote_scalar"] = quote_scalar
    text = (TEMPLATES / "kfdeploy.yaml.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render(**values)


def _make_relative(path: Path, root: Path) -> str:
    """Return the path relative to the workspace, so that both can be moved together."""
    if not path.expanduser().exists():
        raise UserError(
            f"{path}: no such folder or tarball",
            hint="--upstream takes a folder, a tarball or a git URL",
            exit_code=WRONG_USE,
        )
    return Path(os.path.relpath(path.expanduser().resolve(), root.resolve())).as_posix()


def find_host_remotes(folder: Path | None, root: Path) -> list[tuple[str, str]]:
    """Return entries of `upstream.remotes`, one for each host that has a folder in ``folder``.

    Returns:
        Pairs of a URL prefix and a path relative to the workspace ``root``, sorted.

    Raises:
        UserError: The folder does not exist, or has no subfolder named after a host.
    """
    if folder is None:
        return []
    if not folder.is_dir():
        raise UserError(f"--remotes {folder}: no such folder", exit_code=WRONG_USE)
    found = map_hosts(folder, _make_relative(folder, root))
    if not found:
        raise UserError(
            f"--remotes {folder}: has no subfolder named after a host, such as github.com",
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
        raise UserError(
            f"--registry {registry}: not of the form HOST[/PREFIX]", exit_code=WRONG_USE
        ) from error
    if parsed.host != host:
        raise UserError(
            f"--registry {registry}: a registry host needs a dot, a port, or to be localhost",
            exit_code=WRONG_USE,
        )
    return host, prefix
