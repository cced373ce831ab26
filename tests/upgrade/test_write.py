"""Putting another release in place: all of it, or nothing until the next run goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.errors import UserError
from kfdeploy.files import write_all
from kfdeploy.upgrade import write
from tests.conftest import tree

BEFORE = {
    "kfdeploy.yaml": "ref: 1\n",
    "patches/a/old.yaml": "old\n",
    "patches/a/mine.yaml": "mine\n",
    "patches/gone/x.yaml": "x\n",
    "upstream/a": "1",
}
TEXTS = {"kfdeploy.yaml": "ref: 2\n", "patches/a/old.yaml": "new\n", "patches/b/n.yaml": "n\n"}
AFTER = {
    **TEXTS,
    "patches/a/mine.yaml": "mine\n",
    "upstream/b/c": "2",
}


def texts(root: Path) -> dict[str, str]:
    return {name: data.decode() for name, data in tree(root).items()}


def made(folder: Path) -> tuple[Path, Path]:
    """A workspace, and what is prepared for it."""
    shutil.rmtree(folder, ignore_errors=True)
    root = folder / "ws"
    prepared = root / ".kfdeploy/upgrade-x"
    write_all(root, BEFORE)
    write_all(prepared, {"upstream/b/c": "2"})
    return root, prepared


def killed(root: Path, prepared: Path, step: int) -> bool:
    """Write in a process that is gone before its ``step``-th change of the disk; or it is not."""
    if not (child := os.fork()):
        left = step

        def dying(real: Callable[..., Any]) -> Callable[..., Any]:
            def one(*given: Any, **more: Any) -> Any:
                nonlocal left
                if not left:
                    os._exit(9)
                left -= 1
                return real(*given, **more)

            return one

        try:
            for name in ("replace", "unlink", "rmdir", "mkdir"):
                setattr(Path, name, dying(getattr(Path, name)))
            os.mkdir = dying(os.mkdir)
            write.write_upgrade(root, prepared, TEXTS, ["patches/gone/x.yaml"], upstream=True)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


def test_all_is_written_and_what_goes_goes(tmp_path: Path) -> None:
    root, prepared = made(tmp_path / "site")
    write.write_upgrade(root, prepared, TEXTS, ["patches/gone/x.yaml"], upstream=True)
    assert texts(root) == AFTER
    assert not (root / "patches/gone").exists()
    assert {path.name for path in (root / ".kfdeploy").iterdir()} == {"upgrade-x"}
    assert not write.is_unfinished(root)


def test_killed_at_any_step_it_is_the_old_or_goes_on(tmp_path: Path) -> None:
    states = set()
    for step in range(99):
        root, prepared = made(tmp_path / "site")
        was_killed = killed(root, prepared, step)
        if write.is_unfinished(root):
            states.add("goes on")
            write.finish_upgrade(root)
            assert texts(root) == AFTER, step
        elif texts(root) == BEFORE:
            states.add("old")
        else:
            states.add("new")
            assert texts(root) == AFTER, step
        write.remove_stale_folders(root)
        assert list((root / ".kfdeploy").iterdir()) == []
        if not was_killed:
            break
    assert not was_killed
    assert states == {"old", "goes on", "new"}


def test_what_can_t_be_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, prepared = made(tmp_path / "site")

    def full(*given: object, **more: object) -> None:
        raise UserError("kfdeploy.yaml: can't be written: no space left on device")

    monkeypatch.setattr(write, "write_all", full)
    with pytest.raises(UserError, match="no space left"):
        write.write_upgrade(root, prepared, TEXTS, ["patches/gone/x.yaml"], upstream=True)
    assert texts(root) == BEFORE
    assert {path.name for path in (root / ".kfdeploy").iterdir()} == {"upgrade-x"}
