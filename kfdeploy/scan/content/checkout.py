"""Find references in a checkout of an operator's source, and the settings that change them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from kfdeploy.errors import UserError
from kfdeploy.programs import git
from kfdeploy.scan.content import layer, text
from kfdeploy.scan.content.compare import CODE
from kfdeploy.scan.content.layer import LocatedCandidate

_SKIPPED: Final = re.compile(
    r"\..+|venv|vendor|node_modules|dist|third[_-]party|__\w+__|docs?|documentation|website"
    r"|proposals|enhancements|design|examples?|samples?|tutorials|hack|scripts|ci|cd|prow"
    r"|bench(?:mark)?s?|conformance|test-infra|renovate.*"
    r"|(?:.*[-_.])?(?:e2e|tests?|testing|test_?data|testutils?|fixtures|mocks?|fakes?)"
    r"|(?:mocks?|fakes?)[-_.].*"
)
"""Folders of tests, documents, other people's code, and the operator's build. Names that begin with
a dot belong to tools."""
_SKIPPED_AT_TOP: Final = frozenset(
    (
        "build",
        "make",
        "release",
        "releases",
        "releasing",
        "dev",
        "devel",
        "devenv",
        "development",
        "gcb",
    )
)
"""Skipped at the top only. Further down they may be code of the program: Helm's `pkg/release`."""
_BUILD: Final = re.compile(
    r"\..*|makefile.*|.*\.mk|(?:.*\.)?(?:dockerfile|containerfile)(?:\..*)?|.*tiltfile|jenkinsfile"
    r"|procfile|renovate.*|buf(?:\..*)?\.ya?ml|.*bazelrc.*|.*\.(?:bazel|bzl)"
    r"|skaffold.*\.ya?ml|goreleaser.*|(?:.*[-_.])?cloudbuild.*|justfile"
    r"|(?:.*[-_.])?compose(?:[-_.].*)?\.ya?ml"
    r"|(?:build|release|push|publish|make)(?:[-_.].*)?\.(?:sh|ps1|bat|cmd)"
    r"|(?:.*[-_.])?(?:mocks?|fakes?|stories)(?:[-_.].*)?\.(?:go|py|[jt]sx?)|.*_tests?\.[jt]sx?"
)
"""Files of the same kinds as `_SKIPPED`, by their names in lower case."""
_COMPOSE: Final = re.compile(rb"^services:[ \t]*\r?\n", re.MULTILINE)
"""Docker Compose: for developers; no operator reads it."""
_MANIFEST_FOLDERS: Final = re.compile(
    r"(?:^|/)(?:manifests|config|charts?|deploy|deployments?|helm|kustomize|install)/"
)
_KUBERNETES: Final = re.compile(rb"^(?:apiVersion|kind):", re.MULTILINE)
_FILE_MAX: Final = 4 << 20
_NAME_MIN: Final = 6
_IDENTIFIER: Final = re.compile(rb"[A-Za-z_]\w{5,}")
_VARIABLE: Final = re.compile(rb"\b(\w+)\s*(?::?=|:)\s*[\"']([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)[\"']")
_MODULE: Final = re.compile(r"^module\s+(?:github\.com/)?([\w.-]+/[\w.-]+)", re.MULTILINE)
_REMOTE: Final = re.compile(r"url\s*=\s*\S*?github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?\s*$", re.M)


@dataclass(frozen=True, slots=True)
class _SourceFile:
    path: str
    language: str
    content: bytes


def find_candidates(folder: Path) -> tuple[list[LocatedCandidate], list[str]]:
    """Find the candidates in a checkout, without tests, documents, vendored code and ``.git``.

    A candidate in a Kubernetes manifest has ``manifest`` in ``how``: people who install the
    operator see it. ``names`` are the flags and variables whose default it is: those beside it, and
    those beside each use of the constant that holds it.

    Returns:
        The candidates, by path and line, and notes on files that were left out.
    """
    finds: list[LocatedCandidate] = []
    notes: list[str] = []
    code: list[_SourceFile] = []
    for file in _read_files(folder, notes):
        if file.language in CODE:
            code.append(file)
        is_manifest = bool(_MANIFEST_FOLDERS.search(file.path)) and file.language not in CODE
        if file.language in ("yaml", "settings", "") and _KUBERNETES.search(file.content):
            is_manifest = True
        if file.language == "yaml" and not is_manifest and _COMPOSE.search(file.content):
            continue
        try:
            for spot in text.find_candidates(file.content, file.language):
                how = "manifest" if is_manifest else file.language or "text"
                finds.append(
                    LocatedCandidate(
                        spot.candidate, file.path, spot.line, 0, spot.key, spot.names, how
                    )
                )
        except text.TooManyCandidates:
            notes.append(
                f"{layer.escape_path(file.path)}: too many texts look like a reference;"
                " the rest was skipped"
            )
    named = _map_setting_names(
        code, {find.key.rpartition(".")[2] for find in finds if find.how in CODE}
    )
    return [
        replace(find, names=_merge_names(find.names, named.get(find.key.rpartition(".")[2], ())))
        for find in layer.best_candidates(finds)
    ], notes


def detect_origin(folder: Path) -> str:
    """Return ``OWNER/REPO@TAG``, from go.mod, git and the folder's name.

    Parts that none of them has stay ``OWNER/REPO`` and ``TAG``.
    """
    repository, tag = "OWNER/REPO", ""
    for name, pattern in (("go.mod", _MODULE), (".git/config", _REMOTE)):
        path = folder / name
        if path.is_file():
            match = pattern.search(path.read_text(encoding="utf-8", errors="replace"))
            if match:
                repository = match[1]
    if git.is_repository(folder):
        try:
            tag = git.find_head_tag(folder) or git.read_head(folder) or ""
        except UserError:  # no git, or a folder that git does not trust: use the folder's name
            tag = ""
    name = folder.resolve().name
    return f"{repository}@{tag or name.partition('@')[2] or 'TAG'}"


def _read_files(folder: Path, notes: list[str]) -> Iterator[_SourceFile]:
    """Yield the text files to search, sorted by path. Links are not followed."""
    for root, folders, names in os.walk(folder):
        at_top = _SKIPPED_AT_TOP if root == str(folder) else frozenset()
        folders[:] = sorted(
            name
            for name in folders
            if name.lower() not in at_top and not _SKIPPED.fullmatch(name.lower())
        )
        for name in sorted(names):
            path = Path(root) / name
            shown = path.relative_to(folder).as_posix()
            if _BUILD.fullmatch(name.lower()):
                continue
            if layer.is_skipped(shown) or path.is_symlink() or not path.is_file():
                continue
            try:
                with path.open("rb") as opened:
                    content = opened.read(_FILE_MAX + 1)
            except OSError as error:
                notes.append(f"{layer.escape_path(shown)}: {error.strerror}")
                continue
            if len(content) > _FILE_MAX:
                notes.append(
                    f"{layer.escape_path(shown)}: larger than {_FILE_MAX >> 20} MiB; skipped"
                )
            elif b"\0" not in content[:4096]:
                yield _SourceFile(shown, text.detect_language(shown, content[:128]), content)


def _map_setting_names(
    code: list[_SourceFile], constants: set[str]
) -> Mapping[str, tuple[str, ...]]:
    """Map constants to the flags and variables beside their uses."""
    wanted = {name.encode() for name in constants if len(name) >= _NAME_MIN}
    if not wanted:
        return {}
    variables: dict[bytes, str] = {}
    for file in code:
        if b"IMAGE" in file.content:
            variables.update((m[1], m[2].decode()) for m in _VARIABLE.finditer(file.content))
    out: dict[str, list[str]] = {}
    for file in code:
        constants_here = wanted.intersection(_IDENTIFIER.findall(file.content))
        if not constants_here:
            continue
        lines = file.content.split(b"\n")
        for number, line in enumerate(lines):
            used = constants_here.intersection(_IDENTIFIER.findall(line))
            if not used:
                continue
            around = b"\n".join(lines[max(0, number - 1) : number + 2])
            found = list(text.find_image_names(around))
            found += [
                variables[word]
                for word in _IDENTIFIER.findall(around)
                if word in variables and word not in wanted and "IMAGE" in variables[word]
            ]
            for word in used:
                out.setdefault(word.decode(), []).extend(found)
    return {name: tuple(dict.fromkeys(found)) for name, found in out.items()}


def _merge_names(names: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*names, *others)))
