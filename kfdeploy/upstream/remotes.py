"""Fetch remote bases and files, through ``upstream.remotes`` or from the network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kfdeploy.errors import UserError
from kfdeploy.file_tree import FileTree, FolderTree, MemoryTree
from kfdeploy.files import read_bytes
from kfdeploy.programs import git
from kfdeploy.redact import redact_url
from kfdeploy.upstream.download import download_file
from kfdeploy.upstream.remote import Remote, RemoteFile, RemoteRepo
from kfdeploy.upstream.source import is_url

_HINT = "add a git mirror or a folder that has it to `upstream.remotes`"


@dataclass(frozen=True, slots=True)
class FetchedRemote:
    """The files of a remote. ``commit`` is empty unless they came from git."""

    tree: FileTree
    commit: str


def map_hosts(folder: Path, shown: str) -> dict[str, str]:
    """Return the entries of ``upstream.remotes`` for a folder with one subfolder per host.

    Args:
        folder: The folder to read.
        shown: The path of the folder as ``kfdeploy.yaml`` has it.
    """
    return {
        f"https://{path.name}/": f"{shown.rstrip('/')}/{path.name}"
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.name.startswith(".")
    }


@dataclass(frozen=True, slots=True)
class RemoteFetcher:
    """Fetch remotes from the places that a workspace names for them.

    Attributes:
        mapping: URL prefix to a folder, or to the URL prefix of a mirror. The longest prefix that
            matches decides.
        base: The folder that a relative folder is relative to.
        cache: The folder for git repositories.
    """

    mapping: Mapping[str, str]
    base: Path
    cache: Path

    def fetch(self, remote: Remote) -> FetchedRemote:
        """Return the repository at its ref, or a tree whose root (``""``) is the file.

        Raises:
            UserError: The remote does not exist or can't be reached.
        """
        place, rest = self._find_source(remote)
        if isinstance(remote, RemoteFile):
            return FetchedRemote(MemoryTree({"": self._fetch_file(remote, place, rest)}), "")
        if place is None:
            return self._fetch_from_git(remote.clone_url, remote)
        if is_url(place):
            return self._fetch_from_git(_join_url(place, rest), remote)
        return self._fetch_from_folder(remote, place, rest)

    def _find_source(self, remote: Remote) -> tuple[str | None, str]:
        """Return the folder or URL mapped to a remote, and the rest of the remote's URL."""
        best: tuple[int, str, str] | None = None
        for url in remote.urls:
            for prefix, place in self.mapping.items():
                rest = _strip_prefix(url, prefix)
                if rest is not None and (best is None or len(prefix) > best[0]):
                    best = (len(prefix), place, rest)
        return (best[1], best[2]) if best is not None else (None, "")

    def _fetch_file(self, remote: RemoteFile, place: str | None, rest: str) -> bytes:
        if place is None:
            return download_file(remote.url)
        if is_url(place):
            return download_file(_join_url(place, rest))
        rest = rest.partition("?")[0].strip("/")
        if ".." in rest.split("/"):
            raise UserError(f"{redact_url(remote.url)}: the path must not contain '..'")
        path = self._resolve_folder(place) / rest
        if not path.is_file():
            shown = redact_url(remote.url)
            raise UserError(
                f"{shown}: not in {place}, where `upstream.remotes` says it is",
                hint=f"put the file at {_format_location(place, rest)}",
            )
        return read_bytes(path)

    def _fetch_from_folder(self, remote: RemoteRepo, place: str, rest: str) -> FetchedRemote:
        folder = self._resolve_folder(place)
        rest = rest.strip("/").removesuffix(".git")
        ref = remote.ref or "HEAD"
        plain = folder.parent / f"{folder.name}@{ref}" if not rest else folder / f"{rest}@{ref}"
        if plain.is_dir():
            return FetchedRemote(FolderTree(plain), "")
        candidates = [folder / rest, folder / f"{rest}.git"] if rest else [folder]
        for repository in candidates:
            if repository.is_dir() and git.is_repository(repository):
                return self._fetch_from_git(str(repository.resolve()), remote)
        # The prefix names one whole repository, so its folder has the files at any ref.
        if not rest and folder.is_dir():
            return FetchedRemote(FolderTree(folder), "")
        raise UserError(
            f"{redact_url(remote.clone_url)} at {ref}: not in {place}, where"
            " `upstream.remotes` says it is",
            hint=f"put its files at {_format_location(place, f'{rest}@{ref}')}, or a git mirror at"
            f" {_format_location(place, f'{rest}.git')}",
        )

    def _fetch_from_git(self, url: str, remote: RemoteRepo) -> FetchedRemote:
        timeout = max(git.FETCH_TIMEOUT, remote.timeout)
        fetched = git.fetch_commit(url, remote.ref, self.cache, timeout=timeout)
        tree = git.GitTree(fetched)
        if remote.submodules and (inside := tree.find_submodule(remote.path)) is not None:
            raise UserError(
                f"{redact_url(remote.clone_url)}: {remote.path} is in the git submodule"
                f" {inside}; kfdeploy does not fetch submodules",
                hint=_HINT,
            )
        return FetchedRemote(tree, fetched.commit)

    def _resolve_folder(self, place: str) -> Path:
        return self.base / Path(place).expanduser()


def _strip_prefix(url: str, prefix: str) -> str | None:
    """Return the URL after the prefix; ``None`` if the prefix does not end at a path boundary."""
    if url.removesuffix(".git") == prefix.rstrip("/").removesuffix(".git"):
        return ""
    if not url.startswith(prefix):
        return None
    rest = url[len(prefix) :]
    return rest if prefix.endswith(("/", ":")) or rest.startswith(("/", "?")) else None


def _join_url(place: str, rest: str) -> str:
    if not rest:
        return place
    return place + rest.lstrip("/") if re.search(r"[/:]$", place) else f"{place}/{rest.lstrip('/')}"


def _format_location(place: str, rest: str) -> str:
    return f"{place.rstrip('/')}/{rest}"
