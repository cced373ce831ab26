"""Packages import one way, one module starts programs, modules are small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import kfdeploy
from tests.conftest import ROOT

PACKAGE = Path(kfdeploy.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
ORDER = (
    "errors",
    "redact",
    "codec",
    "files",
    "checksums",
    "json_object",
    "file_tree",
    "cache",
    "parallel",
    "terminal",
    "progress",
    "wording",
    "http",
    "go_template",
    "yamltext",
    "programs",
    "kubernetes",
    "oci",
    "patchfile",
    "section",
    "features",
    "workspace",
    "images",
    "upstream",
    "catalogue",
    "lock",
    "patch",
    "scan",
    "releaseset",
    "apply",
    "mirror",
    "session",
    "bundle",
    "export",
    "upgrade",
    "cli",
)
"""The packages and single modules of kfdeploy/: each imports itself and those before it alone."""


PURE = (
    "cli/report",
    "export/formats",
    "features/admission",
    "kubernetes",
    "kubernetes/diff",
    "oci",
    "patchfile",
    "releaseset/diff",
    "releaseset/order",
    "scan/egress",
    "yamltext",
)
"""Folders whose modules compute alone: no file, program or network (folders in them not counted).

A feature's own templates are read by `features.feature`."""
_OUTSIDE_MODULES = frozenset(("fcntl", "http", "mmap", "shutil", "socket", "ssl", "tempfile"))
_FILE_METHODS = frozenset(
    ("read_text", "read_bytes", "write_text", "write_bytes", "iterdir", "rglob", "mkdir", "unlink")
)


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")


def package_of(path: Path) -> str:
    return name(path).split(".")[0]


def list_imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name below kfdeploy of each import, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            assert not node.level, f"{name(path)}:{node.lineno}: a relative import"
            module = node.module or ""
            names = (
                [f"kfdeploy.{alias.name}" for alias in node.names]
                if module == "kfdeploy"
                else [module]
            )
        for one in names:
            if one.startswith("kfdeploy."):
                yield node.lineno, one.removeprefix("kfdeploy.")


def test_every_module_has_its_place_in_the_order() -> None:
    assert {package_of(path) for path in MODULES} == {*ORDER, "__init__"}


@pytest.mark.parametrize("package", ORDER)
def test_packages_import_only_those_before_them(package: str) -> None:
    before = {*ORDER[: ORDER.index(package) + 1], "__version__"}
    wrong = [
        f"{name(path)}:{line} imports {there}"
        for path in MODULES
        if package_of(path) == package
        for line, there in list_imports(path)
        if there.split(".")[0] not in before
    ]
    assert not wrong


def test_the_package_itself_imports_nothing_of_it() -> None:
    assert not list(list_imports(PACKAGE / "__init__.py"))


def test_one_module_starts_programs() -> None:
    starters = set()
    for path in MODULES:
        text = path.read_text()
        if any(word in text for word in ("os.system(", "os.popen(", "os.exec", "os.spawn")):
            starters.add(name(path))
        for node in ast.walk(ast.parse(text)):
            modules = (
                {alias.name for alias in node.names}
                if isinstance(node, ast.Import)
                else {node.module}
                if isinstance(node, ast.ImportFrom)
                else set()
            )
            if modules & {"subprocess", "pty"}:
                starters.add(name(path))
    assert starters == {"programs.process"}


@pytest.mark.parametrize("folder", PURE)
def test_pure_folders_touch_no_file_program_or_network(folder: str) -> None:
    touching = [
        f"{name(path)}: {word}"
        for path in sorted((PACKAGE / folder).glob("*.py"))
        for word in _find_outside_words(path)
    ]
    assert not touching


def _find_outside_words(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (n.name for n in names if n.name.split(".")[0] in _OUTSIDE_MODULES)
            case ast.ImportFrom(module=str(module)) if module.startswith("kfdeploy.programs"):
                yield module
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in _OUTSIDE_MODULES:
                yield module
            case ast.Attribute(attr=attr) if attr in _FILE_METHODS:
                yield attr
            case ast.Call(func=ast.Name(id="open")):
                yield "open"
            case _:
                pass


def test_no_module_is_over_500_lines() -> None:
    long = {name(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {module: lines for module, lines in long.items() if lines > 500} == {}


def test_the_architecture_page_lists_the_packages_in_their_order() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    listed = [word.strip(" `") for row in rows for word in row.split(",")]
    assert listed[: len(ORDER)] == list(ORDER)


def test_each_package_says_what_it_is_for() -> None:
    silent = [
        path.parent.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("__init__.py")
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent


# -- no word that only means something here --------------------------------------------------------


def test_no_file_holds_a_path_of_the_machine_it_was_written_on() -> None:
    home = str(ROOT)
    assert len(home) > 5
    for path in [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))]:
        assert home not in path.read_text(), path
