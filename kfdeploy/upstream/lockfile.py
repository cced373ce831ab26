"""Read and write ``upstream.lock``, which records where each part of the vendored tree is from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_HEADER = """\
# Written by `kfdeploy vendor`: where each part of upstream/ came from. Do not edit.
# A folder's sha256 is that of the lines "SHA256  PATH" of its files, sorted by path.
"""
_VERSION = 1


class InvalidUpstreamLock(ValueError):
    """The text is not a valid ``upstream.lock``. The message names the key."""


@dataclass(frozen=True, slots=True)
class LockedUpstream:
    """Where the manifests are from.

    Attributes:
        source: The URL, or the name of the folder or tarball.
        version: The release's version.
        ref: The ref as given; empty without one.
        commit: The commit of a git repository, or the one that git wrote into a tarball; else
            empty.
        sha256: The digest of the tree, in hex.
    """

    source: str
    version: str
    ref: str
    commit: str
    sha256: str


@dataclass(frozen=True, slots=True)
class LockedRemote:
    """A remote base or file.

    Attributes:
        url: The URL as written upstream, without a password.
        ref: The branch, tag or commit in the URL; empty for a file or the default branch.
        commit: The commit that git resolved the ref to; empty if it is not from git.
        sha256: The digest of the file, or of the tree of vendored files, in hex.
        path: The path below ``upstream/``.
        used_by: ``file:line`` of each reference, relative to the upstream.
    """

    url: str
    ref: str
    commit: str
    sha256: str
    path: str
    used_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UpstreamLock:
    """The content of ``upstream.lock``."""

    upstream: LockedUpstream
    remotes: tuple[LockedRemote, ...]

    def dump(self) -> str:
        """Return the file's text. Equal values give equal text."""
        up = self.upstream
        lines = [
            f"version: {_VERSION}",
            "upstream:",
            *_format_fields("  ", source=up.source, version=up.version, ref=up.ref),
            *_format_fields("  ", commit=up.commit, sha256=up.sha256),
        ]
        lines.append("remotes:" if self.remotes else "remotes: []")
        for remote in sorted(self.remotes, key=lambda r: (r.path, r.url)):
            first, *rest = [
                *_format_fields("  ", url=remote.url, ref=remote.ref, commit=remote.commit),
                *_format_fields("  ", sha256=remote.sha256, path=remote.path),
            ]
            lines += [f"- {first.lstrip()}", *rest, "  usedBy:"]
            lines += [f"  - {_quote_value(where)}" for where in sorted(set(remote.used_by))]
        return _HEADER + "\n".join(lines) + "\n"

    @classmethod
    def parse(cls, text: str) -> UpstreamLock:
        """Read the text that `dump` writes.

        Raises:
            InvalidUpstreamLock: The YAML is broken, or a key is missing or of another type.
        """
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        try:
            data = YAML(typ="safe").load(text)
        except YAMLError as error:
            raise InvalidUpstreamLock(f"broken YAML: {error}") from error
        if not isinstance(data, dict) or data.get("version") != _VERSION:
            raise InvalidUpstreamLock(f"version: must be {_VERSION}")
        up = _require_mapping(data.get("upstream"), "upstream")
        remotes = data.get("remotes")
        if not isinstance(remotes, list):
            raise InvalidUpstreamLock("remotes: not a list")
        return cls(
            LockedUpstream(
                source=_require_text(up, "upstream", "source"),
                version=_require_text(up, "upstream", "version"),
                ref=_require_text(up, "upstream", "ref", ""),
                commit=_require_text(up, "upstream", "commit", ""),
                sha256=_require_text(up, "upstream", "sha256"),
            ),
            tuple(_parse_remote(item, f"remotes[{index}]") for index, item in enumerate(remotes)),
        )


def _parse_remote(item: object, key: str) -> LockedRemote:
    fields = _require_mapping(item, key)
    used_by = fields.get("usedBy")
    if not isinstance(used_by, list) or not all(isinstance(where, str) for where in used_by):
        raise InvalidUpstreamLock(f"{key}.usedBy: not a list of strings")
    return LockedRemote(
        url=_require_text(fields, key, "url"),
        ref=_require_text(fields, key, "ref", ""),
        commit=_require_text(fields, key, "commit", ""),
        sha256=_require_text(fields, key, "sha256"),
        path=_require_text(fields, key, "path"),
        used_by=tuple(used_by),
    )


def _require_mapping(value: object, key: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidUpstreamLock(f"{key}: not a mapping")
    return value


def _require_text(
    fields: Mapping[str, Any], key: str, name: str, default: str | None = None
) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str):
        raise InvalidUpstreamLock(f"{key}.{name}: not a string")
    return value


def _format_fields(indent: str, **values: str) -> list[str]:
    return [f"{indent}{name}: {_quote_value(value)}" for name, value in values.items() if value]


def _quote_value(value: str) -> str:
    """Return the value in double quotes, so that no version or commit is read as a number."""
    return json.dumps(value, ensure_ascii=False)
