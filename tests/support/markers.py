"""The markers of tests: what each needs, and a check that it says so.

`servers` is for tests that start a registry, a cluster or another server program, `kubeflow` for
those that work on a whole Kubeflow release, `programs` for those that need Helm, Helmfile or
kubectl; all three are given to tests by what they use. `slow` is for the sweeps that only
`make test-all` runs. `make unit` runs what has none of them.

A test that starts a server without the marker fails, in every run: it cannot slip into `make unit`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pytest

_SERVERS: Final = "servers"
_SERVER_FIXTURES: Final = frozenset(("small_site", "real_site"))
_KUBEFLOW: Final = "kubeflow"
_KUBEFLOW_FIXTURES: Final = frozenset(("upstreams", "real_site", "beside"))
_PROGRAMS: Final = "programs"
_OUTSIDE_PROGRAMS: Final = frozenset(("helm", "helmfile", "kubectl"))
_SLOW: Final = "slow"
_running: frozenset[str] | None = None
"""Markers of the running test; None outside of tests."""


class MarkerMissing(AssertionError):
    """A test does what only tests with a marker may do."""


def mark_by_needs(item: pytest.Function) -> None:
    """Mark a test by its fixtures, and by all that it and they call in tests/.

    A fixture may be named in a string: ``request.getfixturevalue("small_site")``.
    """
    names = {*item.fixturenames, *_list_names(_list_functions(item))}
    if "require_servers" in names or not names.isdisjoint(_SERVER_FIXTURES):
        item.add_marker(_SERVERS)
    if not names.isdisjoint(_KUBEFLOW_FIXTURES):
        item.add_marker(_KUBEFLOW)
    if "need_programs" in names and not names.isdisjoint(_OUTSIDE_PROGRAMS):
        item.add_marker(_PROGRAMS)


def _list_functions(item: pytest.Function) -> Iterator[Callable[..., Any]]:
    yield item.function
    for definitions in item._fixtureinfo.name2fixturedefs.values():
        yield definitions[-1].func


def _list_names(functions: Iterator[Callable[..., Any]]) -> Iterator[str]:
    """List the names and strings in the code of functions and of what they call in tests/."""
    left = [inspect.unwrap(function) for function in functions]
    seen: set[Callable[..., Any]] = set()
    while left:
        function = left.pop()
        if function in seen or not isinstance(function, FunctionType):
            continue
        seen.add(function)
        names = _read_code(function.__code__)
        yield from names
        for name in names:
            left += _find_callees(function.__globals__.get(name))


@cache
def _read_code(code: CodeType) -> frozenset[str]:
    names = {*code.co_names}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _read_code(constant)
        elif isinstance(constant, str):
            names.add(constant)
    return frozenset(names)


def _find_callees(value: Any) -> list[Callable[..., Any]]:
    """List the functions behind a global name: itself, or a class's methods; none of others'."""
    if not getattr(value, "__module__", "").startswith("tests."):
        return []
    members = vars(value).values() if isinstance(value, type) else (value,)
    return [inspect.unwrap(member) for member in members if callable(member)]


@contextmanager
def hold_to_markers(item: pytest.Item) -> Iterator[None]:
    """Let the functions below fail while a test without their marker runs."""
    global _running
    _running = frozenset(marker.name for marker in item.iter_markers())
    try:
        yield
    finally:
        _running = None


def require_servers(what: str) -> None:
    """Fail a test that starts a server without saying so; all that start one ask."""
    _require(_SERVERS, what)


def require_slow(what: str) -> None:
    """Fail a test that does what takes long and is not left to `make test-all`."""
    _require(_SLOW, what)


def _require(marker: str, what: str) -> None:
    if _running is not None and marker not in _running:
        raise MarkerMissing(f"this test needs {what}: mark it with @pytest.mark.{marker}")
