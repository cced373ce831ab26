"""Imports point one way, one module starts programs, modules are small, the catalogue is honest."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import kfdeploy
from tests.conftest import ROOT

PACKAGE = Path(kfdeploy.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
LAYERS = {
    "model": 0,
    "tools": 1,
    "features": 2,
    "pipeline": 2,
    "session": 3,
    "cli": 4,
}
BESIDE = {"errors", "files", "cache", "progress", "show", "__init__"}
"""Modules of the package itself that several layers use; they use no layer."""


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")


def imports(path: Path) -> Iterator[str]:
    """Modules of the package that a module imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            pytest.fail(f"{name(path)}:{node.lineno}: a relative import")
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for one in names:
            part = one.removeprefix("kfdeploy.")
            if part != one and part.split(".")[0] in {*LAYERS, *BESIDE}:
                yield part


def layer(module: str) -> int:
    return LAYERS.get(module.split(".")[0], -1)


def test_there_are_modules_in_each_layer() -> None:
    assert {layer(name(path)) for path in MODULES} >= {-1, 0, 1, 2, 3, 4}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_one_way(path: Path) -> None:
    here = name(path)
    wrong = {there for there in imports(path) if layer(there) > layer(here) >= 0}
    if here.split(".")[0] in BESIDE:
        wrong |= {there for there in imports(path) if layer(there) > 0}
    assert not wrong, f"{here} imports {sorted(wrong)}"


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("pipeline/*.py")), ids=name)
def test_stages_do_not_import_each_other(path: Path) -> None:
    others = {
        there
        for there in imports(path)
        if there.startswith("pipeline.") and not there.startswith(name(path))
    }
    assert not others


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_one_module_starts_programs(path: Path) -> None:
    text = path.read_text()
    used = {word for word in ("os.system(", "os.popen(", "os.exec", "os.spawn") if word in text}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            used |= {"subprocess", "pty"} & {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            used |= {"subprocess", "pty"} & {node.module}
    assert not used or name(path) == "tools.process"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_module_is_over_500_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500


def test_the_model_reads_no_files_but_its_own_catalogue() -> None:
    readers = {
        name(path)
        for path in PACKAGE.glob("model/**/*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("read_text", "read_bytes", "open")
    }
    assert readers <= {"model.catalogue_file", "model.lockfile"}


# -- no word that only means something here --------------------------------------------------------


def test_no_file_holds_a_path_of_the_machine_it_was_written_on() -> None:
    home = str(ROOT)
    assert len(home) > 5
    for path in [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))]:
        assert home not in path.read_text(), path
