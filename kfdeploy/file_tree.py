"""Read files from folders, from memory, and from trees mounted in each other."""

# A walk asks for a thousand paths, and pathlib takes several times as long.
# ruff: noqa: PTH112, PTH113, PTH118

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, Protocol

from kfdeploy.errors import UserError
from kfdeploy.files import read_bytes, sha256_hex

FileKind = Literal["file", "folder"]


MANIFEST_SUFFIXES = (".yaml", ".yml", ".json")


class FileTree(Protocol):
    """Files by POSIX path relative to the tree's root; the root itself is ``""``."""

    def get_kind(self, path: str) -> FileKind | None:
        """Return what is at a path; None for nothing. Links are followed."""

    def read_file(self, path: str) -> bytes:
        """Return a file's bytes; raise UserError when it can't be read."""

    def list_files(self, folder: str) -> Iterator[str]:
        """Yield all files below a folder, sorted, without git's own."""


class FolderTree:
    """A folder on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root = os.fspath(root)
        self._real = os.path.realpath(root)

    def get_kind(self, path: str) -> FileKind | None:
        full = os.path.join(self._root, path)
        if os.path.isfile(full):
            return "file"
        return "folder" if os.path.isdir(full) else None

    def read_file(self, path: str) -> bytes:
        full = os.path.join(self._root, path)
        real = os.path.realpath(full)
        if real != full and not f"{real}{os.sep}".startswith(f"{self._real}{os.sep}"):
            raise UserError(f"{path}: a link that leads out of {self.root.name}")
        return read_bytes(Path(full))

    def list_files(self, folder: str) -> Iterator[str]:
        start = os.path.join(self._root, folder)
        for at, folders, names in os.walk(start):
            folders[:] = sorted(name for name in folders if name != ".git")
            inside = os.path.relpath(at, self._root)
            for name in sorted(names):
                yield posixpath.normpath(f"{inside}/{name}")


class MemoryTree:
    """Files held in memory, and links with their targets."""

    def __init__(self, files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> None:
        self.files = files
        self.links = links or {}
        self._folders = {""}
        for path in (*files, *self.links):
            while path := posixpath.dirname(path):
                self._folders.add(path)

    def get_kind(self, path: str) -> FileKind | None:
        real = resolve_links(path, self.links.get)
        if real in self.files:
            return "file"
        return "folder" if real in self._folders else None

    def read_file(self, path: str) -> bytes:
        real = resolve_links(path, self.links.get)
        if real is None or real not in self.files:
            raise UserError(f"{path}: no such file")
        return self.files[real]

    def list_files(self, folder: str) -> Iterator[str]:
        inside = f"{folder}/" if folder else ""
        yield from sorted(path for path in self.files if path.startswith(inside))


_LINK_DEPTH = 20


def resolve_links(path: str, read_link: Callable[[str], str | None]) -> str | None:
    """Return the path with every link on the way replaced, element by element.

    ``..`` behind a link goes up from where the link leads to, as in a file system: two links that
    stay in the tree by their letters may lead out of it one through the other.

    Args:
        read_link: returns the target of the link at a path; None where there is no link.

    Returns:
        None when the path leads out of the tree, or links lead in a circle.
    """
    left = path.split("/")[::-1]
    reached: list[str] = []
    links = 0
    while left:
        part = left.pop()
        if part == "..":
            if not reached:
                return None
            reached.pop()
        elif part not in ("", "."):
            reached.append(part)
            to = read_link("/".join(reached))
            if to is not None:
                links += 1
                if links > _LINK_DEPTH or to.startswith("/"):
                    return None
                reached.pop()
                left += to.split("/")[::-1]
    return "/".join(reached)


def escapes_root(path: str) -> bool:
    """Return whether a normalised relative path leads out of the folder it is relative to."""
    return path == ".." or path.startswith(("../", "/"))


class OverlayTree:
    """Trees mounted in a base tree. A mount hides what the base has there."""

    def __init__(self, base: FileTree) -> None:
        self.base = base
        self.mounts: dict[str, FileTree] = {}

    def mount(self, at: str, tree: FileTree) -> None:
        self.mounts[at] = tree

    def find_mount(self, path: str) -> str:
        """Return the mount that a path lies in; ``""`` for the base."""
        at = path
        while at:
            if at in self.mounts:
                return at
            at = posixpath.dirname(at)
        return ""

    def _resolve_mount(self, path: str) -> tuple[FileTree, str]:
        at = self.find_mount(path)
        return (self.mounts[at], path[len(at) + 1 :]) if at else (self.base, path)

    def get_kind(self, path: str) -> FileKind | None:
        tree, inside = self._resolve_mount(path)
        return tree.get_kind(inside)

    def read_file(self, path: str) -> bytes:
        tree, inside = self._resolve_mount(path)
        return tree.read_file(inside)

    def list_files(self, folder: str) -> Iterator[str]:
        at = self.find_mount(folder)
        tree, inside = self._resolve_mount(folder)
        for path in tree.list_files(inside):
            yield f"{at}/{path}" if at else path


def tree_sha256(digests: Mapping[str, str]) -> str:
    """Return one checksum for a tree: the SHA-256 of its ``SHA256SUMS``, sorted by path.

    In a folder, ``find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum`` gives the same.

    Args:
        digests: relative path to the hex digest of the file's bytes.
    """
    ordered = sorted(digests.items(), key=lambda item: item[0].encode())
    return sha256_hex("".join(f"{digest}  {path}\n" for path, digest in ordered).encode())
