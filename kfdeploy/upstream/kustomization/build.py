"""Run ``kustomize build`` without network access."""

from __future__ import annotations

import os
import re
import threading
from functools import lru_cache
from pathlib import Path
from typing import Final

from kfdeploy.errors import UserError, raise_all
from kfdeploy.file_tree import FolderTree
from kfdeploy.programs.process import (
    OFFLINE_ENVIRONMENT,
    ProgramFailed,
    find_program,
    run_program,
)
from kfdeploy.redact import redact_url
from kfdeploy.upstream.kustomization.graph import (
    KustomizationGraph,
    KustomizationNode,
    ReferenceEdge,
    build_graph,
    find_kustomization,
)
from kfdeploy.upstream.kustomization.nodes import InvalidKustomization, compose_documents

__all__ = [
    "KustomizationGraph",
    "KustomizationNode",
    "ReferenceEdge",
    "build_graph",
    "build_kustomization",
    "find_kustomization",
    "get_version",
]

OLDEST: Final = (5, 4)
"""The oldest release whose output the tests compare."""

_TIMEOUT = 300.0
# Garbage collection takes nearly half of a build's time. With less of it the largest builds of
# 1.10.2 need some 100 MiB more memory (kserve 258 MiB instead of 159).
_LESS_COLLECTING: Final = {"GOGC": "400", "GOMEMLIMIT": "1GiB"}


def build_environment() -> dict[str, str]:
    """Return the variables for a build: no network, and less garbage collection unless set."""
    return {
        **{k: v for k, v in _LESS_COLLECTING.items() if k not in os.environ},
        **OFFLINE_ENVIRONMENT,
    }


def get_version() -> tuple[int, int, int]:
    """Return the version of kustomize.

    Raises:
        UserError: It is not on PATH, or older than `OLDEST`.
    """
    with _ASKING:
        return _query_version(os.fspath(find_program("kustomize")))


_ASKING: Final = threading.Lock()
"""Without it every thread would run the program before `lru_cache` has the answer."""


@lru_cache(maxsize=8)
def _query_version(program: str) -> tuple[int, int, int]:
    output = run_program([program, "version"], timeout=60, what="kustomize version").stdout.decode()
    match = re.search(r"v?(\d+)\.(\d+)\.(\d+)", output)
    if match is None:
        raise UserError(f"`kustomize version` prints no version: {output.strip()!r}")
    found = (int(match[1]), int(match[2]), int(match[3]))
    if found < OLDEST:
        raise UserError(
            f"kustomize is {'.'.join(map(str, found))}; {OLDEST[0]}.{OLDEST[1]} or later is needed",
            hint="`kfdeploy doctor` says how to install a newer one",
        )
    return found


def build_kustomization(
    root: Path, folder: str, *, graph: KustomizationGraph | None = None
) -> bytes:
    """Return the output of ``kustomize build`` for a folder.

    Files from anywhere in the tree are allowed (``--load-restrictor LoadRestrictionsNone``).

    Args:
        root: The vendored tree.
        folder: The kustomization, relative to ``root``.
        graph: A graph that has the folder. Built here when it is left out.

    Returns:
        YAML documents.

    Raises:
        UserError: A reference is remote or leads nowhere, or a file is broken (file and line).
        ProgramFailed: Kustomize fails for another reason. It has kustomize's own message.
    """
    get_version()
    if graph is None or folder not in graph.nodes:
        graph = build_graph(root, [folder])
        raise_all(graph.errors)
    raise_all(
        [
            UserError(
                f"{edge.where}: {edge.reference.field}: {redact_url(edge.reference.value)}"
                " is not vendored",
                hint="run `kfdeploy vendor`, which makes a complete local tree",
            )
            for edge in graph.list_remote_edges(folder)
        ]
    )
    argv = ["kustomize", "build", "--load-restrictor", "LoadRestrictionsNone"]
    if any(graph.nodes[at].charts for at in graph.list_reachable(folder)):
        argv += ["--enable-helm"]
    try:
        return run_program(
            [*argv, "."],
            cwd=root / folder,
            env=build_environment(),
            timeout=_TIMEOUT,
            what=f"build of {folder}",
        ).stdout
    except ProgramFailed as error:
        broken = _find_broken_files(root, graph, folder)
        if broken:
            raise_all(broken)
        here = os.fspath(root.resolve())
        raise ProgramFailed(
            _clean_message(error.message, here),
            stderr=_clean_message(error.stderr, here),
            code=error.code,
        ) from error


def _clean_message(message: str, root: str) -> str:
    """Remove deprecation warnings from kustomize's message, and make paths relative to the tree."""
    without_warnings = re.sub(r"# Warning: [^\n]*(?:\n\s*|$)", "", message)
    return without_warnings.replace(f"{root}/", "").replace(root, ".")


def _find_broken_files(root: Path, graph: KustomizationGraph, folder: str) -> list[UserError]:
    """Return errors for a build's broken files, with their lines, which kustomize does not name."""
    tree = FolderTree(root)
    errors: list[UserError] = []
    for path in graph.list_files(folder):
        if not path.endswith((".yaml", ".yml", ".json")):
            continue
        try:
            compose_documents(tree.read_file(path).decode("utf-8"))
        except UnicodeDecodeError as error:
            errors.append(UserError(f"{path}: byte {error.start}: not UTF-8 text"))
        except InvalidKustomization as error:
            errors.append(UserError(f"{path}:{error.line}: {error.message}"))
    return errors
