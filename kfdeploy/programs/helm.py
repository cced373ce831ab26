"""Render charts with helm, and notice a chart that renders differently each time."""

from __future__ import annotations

import os
import posixpath
import re
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from kfdeploy.errors import UserError, raise_all
from kfdeploy.file_tree import FileTree, FolderTree
from kfdeploy.programs.process import OFFLINE_ENVIRONMENT, find_program, run_program
from kfdeploy.yamltext import nodes

OLDEST: Final = (3, 18)
_TIMEOUT = 300.0
_ABSENT: Final = object()


def require_version() -> tuple[int, int, int]:
    """Return helm's version.

    Raises:
        UserError: helm is not on PATH, or older than `OLDEST`.
    """
    return _query_version(os.fspath(find_program("helm")))


@lru_cache(maxsize=8)
def _query_version(program: str) -> tuple[int, int, int]:
    output = run_program(
        [program, "version", "--short"], timeout=60, what="helm version"
    ).stdout.decode()
    match = re.search(r"v?(\d+)\.(\d+)\.(\d+)", output)
    if match is None:
        raise UserError(f"helm version: can't be read: {output.strip()!r}")
    found = (int(match[1]), int(match[2]), int(match[3]))
    if found < OLDEST:
        raise UserError(
            f"helm is {'.'.join(map(str, found))}; {OLDEST[0]}.{OLDEST[1]} or later is needed",
            hint="`kfdeploy doctor` says how to install a newer one",
        )
    return found


def render_chart(
    chart: Path,
    release: str,
    namespace: str,
    *,
    values: Sequence[Path] = (),
    kube_version: str | None = None,
    twice: bool = True,
) -> bytes:
    """Return what a chart installs: its CRDs, its hooks and its objects, without its tests.

    Tests are pods that only ``helm test`` starts. Hooks keep their annotations; whoever installs
    the result orders them. No cluster is asked: ``lookup`` finds nothing.

    Args:
        chart: the chart's folder, with its dependencies in ``charts/``.
        release: Helm's release name.
        namespace: Helm's release namespace.
        values: files; later ones win.
        kube_version: Kubernetes version that the chart sees.
        twice: render a second time and compare.

    Raises:
        UserError: the second rendering differs (the message names object and field), or a
            dependency is missing.
        ProgramFailed: helm fails; with its own message.
    """
    require_version()
    raise_all(find_missing_dependencies(FolderTree(chart), ""))
    argv: list[str | Path] = ["helm", "template", release, chart.resolve()]
    argv += ["--namespace", namespace, "--include-crds", "--skip-tests"]
    for path in values:
        argv += ["--values", path.resolve()]
    if kube_version:
        argv += ["--kube-version", kube_version]
    with tempfile.TemporaryDirectory(prefix="kfdeploy-helm-") as home:
        # Neither the user's repositories, plugins nor cluster may have a part in the result.
        env = {
            **OFFLINE_ENVIRONMENT,
            "HELM_CONFIG_HOME": f"{home}/config",
            "HELM_CACHE_HOME": f"{home}/cache",
            "HELM_DATA_HOME": f"{home}/data",
            "HELM_NAMESPACE": namespace,
            "KUBECONFIG": f"{home}/none",
        }
        what = f"rendering of chart {release}"
        first = run_program(argv, env=env, timeout=_TIMEOUT, what=what).stdout
        if twice:
            second = run_program(argv, env=env, timeout=_TIMEOUT, what=what).stdout
            if first != second:
                _raise_difference(release, first, second)
    return first


def find_missing_dependencies(tree: FileTree, chart: str) -> list[UserError]:
    """Return an error for each dependency in ``Chart.yaml`` that is not in the chart's ``charts/``.

    Args:
        tree: what ``chart``, the chart's folder, is relative to.
    """
    from ruamel.yaml.error import YAMLError

    path = posixpath.join(chart, "Chart.yaml")
    try:
        data = nodes.load_document(tree.read_file(path).decode("utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: broken YAML: {error}") from error
    listed = data.get("dependencies") if isinstance(data, dict) else None
    present = [p.rpartition("/")[2] for p in tree.list_files(posixpath.join(chart, "charts"))]
    errors = []
    for item in listed if isinstance(listed, list) else []:
        name, wanted = str(item.get("name", "")), str(item.get("version", ""))
        repository = str(item.get("repository", ""))
        if tree.get_kind(posixpath.join(chart, "charts", name, "Chart.yaml")) == "file":
            continue
        if any(file.startswith(f"{name}-") and file.endswith(".tgz") for file in present):
            continue
        source = f" of {repository}" if repository else ""
        errors.append(
            UserError(
                f"{path}: dependency {name} {wanted}{source} is not in charts/",
                hint="fetch it into the upstream with `helm dependency build`, and vendor again",
            )
        )
    return errors


def _raise_difference(release: str, first: bytes, second: bytes) -> None:
    where = _locate_difference(_index_objects(first), _index_objects(second))
    raise UserError(
        f"chart {release} renders differently each time: {where}",
        hint="set the value that the chart generates (a password, certificate or date) in the"
        " component's `values`",
    )


def _locate_difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    for key in {**first, **second}:
        if key not in first or key not in second:
            return f"{key} is in only one of two renderings"
        field = _find_difference(first[key], second[key], "")
        if field is not None:
            return f"{key}: {field}"
    return "the order of its documents"


def _index_objects(text: bytes) -> dict[str, Any]:
    """Return the objects by ``KIND [NAMESPACE/]NAME``."""
    found: dict[str, Any] = {}
    for data in nodes.load_documents(text.decode("utf-8")):
        if not isinstance(data, dict):
            continue
        meta = data.get("metadata") or {}
        place = f"{meta['namespace']}/" if meta.get("namespace") else ""
        found[f"{data.get('kind')} {place}{meta.get('name')}"] = data
    return found


def _find_difference(one: Any, two: Any, at: str) -> str | None:
    """Return the path of the first field that differs, below ``at``; None where none does."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        pairs = [
            (f"{at}.{key}" if at else str(key), one.get(key, _ABSENT), two.get(key, _ABSENT))
            for key in {**one, **two}
        ]
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        pairs = [
            (f"{at}[{index}]", a, b) for index, (a, b) in enumerate(zip(one, two, strict=True))
        ]
    else:
        return None if one == two else at
    differences = (_find_difference(a, b, path) for path, a, b in pairs)
    return next((path for path in differences if path is not None), None)


def server_side_flags() -> list[str]:
    """Return the flags with which Helm 4 applies on the server and takes fields that others own.

    Without them Helm 4 applies in the way of the last revision, which Helm 3 may have made.
    """
    return ["--server-side=true", "--force-conflicts"] if require_version() >= (4,) else []


def rollback(release: str, revision: int, namespace: str, context: str, *, seconds: float) -> None:
    """Roll a release back to an earlier revision.

    Raises:
        ProgramFailed: helm fails; with its own message.
    """
    argv = ["helm", "rollback", release, str(revision), f"--namespace={namespace}"]
    argv += [f"--kube-context={context}"] if context else []
    argv += server_side_flags()
    run_program(
        [*argv, f"--timeout={seconds:.0f}s"], timeout=seconds + 60, what=f"rollback of {release}"
    )
