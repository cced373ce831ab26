"""Read the upstream from a folder, a tarball, or a git repository at a ref."""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import re
import stat
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kfdeploy.errors import UserError, raise_all
from kfdeploy.file_tree import (
    FileTree,
    FolderTree,
    MemoryTree,
    escapes_root,
    resolve_links,
    tree_sha256,
)
from kfdeploy.files import read_bytes, sha256_hex
from kfdeploy.programs import git
from kfdeploy.redact import redact_url
from kfdeploy.upstream.download import download_file

_MAX_BYTES: Final = 1 << 30
_GIT_URL = re.compile(r"(?:git::)?(?:https?|ssh|git|file)://|[\w.-]+@[\w.-]+:", re.I)
_TARBALL = re.compile(r"\.(?:tar|tar\.gz|tgz)$", re.I)
_VERSION = re.compile(r"(?:^|[-_])(?P<version>v?\d+\.\d+(?:\.\d+)?(?:[-.]?rc[.-]?\d+)?)$")
_OWN_FOLDERS = {"applications", "apps", "common", "example", "experimental", "contrib"}


@dataclass(frozen=True, slots=True)
class UpstreamSource:
    """The upstream's files.

    Attributes:
        name: The name that `upstream.lock` records: the last part of a folder's or tarball's path,
            or a URL without a password.
        tree: The files, to read from.
        files: Path to content, on disk or in memory. Does not have git's own files.
        links: Path of each symbolic link to its target. All targets are in the tree.
        ref: The ref as given; empty without one.
        commit: The commit that git or the tarball states; else empty.
        found_version: The version that the source's name, tag or VERSION file states; else empty.
    """

    name: str
    tree: FileTree
    files: Mapping[str, Path | bytes]
    links: Mapping[str, str]
    ref: str
    commit: str
    found_version: str

    @property
    def version(self) -> str:
        """The given ref, else the version that the source states.

        Raises:
            UserError: There is neither.
        """
        if self.ref or self.found_version:
            return self.ref or self.found_version
        raise UserError(
            f"upstream: {self.name} does not say which version it is",
            hint="set `upstream.ref` in kfdeploy.yaml (`kfdeploy init --ref`)",
        )

    def compute_sha256(self) -> str:
        """Return the digest of the tree. A link counts with the text of its target."""
        digests = {path: sha256_hex(read_content(data)) for path, data in self.files.items()}
        digests |= {path: sha256_hex(to.encode()) for path, to in self.links.items()}
        return tree_sha256(digests)


def read_content(data: Path | bytes) -> bytes:
    """Return a file's bytes, from memory or from disk."""
    return data if isinstance(data, bytes) else read_bytes(data)


def is_url(source: str) -> bool:
    """Return whether the text is a URL (or git's ``user@host:path``) and not a path."""
    return _GIT_URL.match(source) is not None


def read_source(source: str, ref: str | None, base: Path, cache: Path) -> UpstreamSource:
    """Read the upstream.

    Args:
        source: A folder, a tarball or a URL.
        ref: A tag, branch or commit of a git repository. For anything else, only the version.
        base: The folder that a relative path is relative to.
        cache: The folder for git repositories (see `git.fetch_commit`).

    Raises:
        UserError: The source does not exist or can't be read, a git repository has no ref, or a
            tarball has files or links that lead out of it.
    """
    ref = ref or ""
    if is_url(source):
        bare = source.removeprefix("git::")
        shown = redact_url(bare)
        if _TARBALL.search(bare.partition("?")[0]) and bare.lower().startswith("http"):
            return _read_tarball(download_file(bare), shown.rpartition("/")[2], shown, ref)
        return _read_repository(bare, ref, cache, shown)
    path = base / Path(source).expanduser()
    if path.is_dir():
        if git.is_repository(path):
            if not (path / ".git").exists():
                return _read_repository(str(path.resolve()), ref, cache, path.resolve().name)
            return _read_work_tree(path, ref)
        return _read_folder(path, ref)
    if path.is_file():
        return _read_tarball(read_bytes(path), path.name, path.name, ref)
    raise UserError(
        f"upstream.source: {source}: no such folder or tarball",
        hint="a path is relative to the workspace; a git URL starts with its scheme (https://)",
    )


def _read_repository(url: str, ref: str, cache: Path, name: str) -> UpstreamSource:
    if not ref:
        raise UserError(
            f"upstream.source: {name} is a git repository, and no ref says which commit",
            hint="set `upstream.ref` in kfdeploy.yaml to a tag or commit (`kfdeploy init --ref`)",
        )
    fetched = git.fetch_commit(url, ref, cache)
    files, links = git.GitTree(fetched).load_files()
    _check_links(links, name)
    tree = MemoryTree(files, links)
    return UpstreamSource(name, tree, files, links, ref, fetched.commit, "")


def _read_work_tree(path: Path, ref: str) -> UpstreamSource:
    commit = git.read_head(path) or ""
    wanted = git.resolve_ref(path, ref) if ref else None
    if wanted is not None and wanted != commit:
        raise UserError(
            f"upstream: {path.name} has {commit[:12] or 'nothing'} checked out, but upstream.ref"
            f" {ref} is {wanted[:12]}",
            hint=f"run `git checkout {ref}` there, or set upstream.source to the repository's URL",
        )
    source = _read_folder(path, ref)
    tag = git.find_head_tag(path) or ""
    return UpstreamSource(
        source.name,
        source.tree,
        source.files,
        source.links,
        ref,
        commit,
        tag or source.found_version,
    )


def _read_folder(path: Path, ref: str) -> UpstreamSource:
    path = path.resolve()
    files: dict[str, Path | bytes] = {}
    links: dict[str, str] = {}
    errors: list[UserError] = []

    def report_unreadable(error: OSError) -> None:
        errors.append(UserError(f"upstream: {error.filename}: {(error.strerror or '').lower()}"))

    for at, folders, names in os.walk(path, onerror=report_unreadable):
        here = Path(at)
        inside = here.relative_to(path).as_posix()
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in sorted([*names, *folders]):
            full = here / name
            relative = posixpath.normpath(f"{inside}/{name}")
            mode = full.lstat().st_mode
            if stat.S_ISLNK(mode):
                links[relative] = os.readlink(full)  # noqa: PTH115 - pathlib changes its text
            elif stat.S_ISREG(mode):
                if name != ".git":
                    files[relative] = full
            elif not stat.S_ISDIR(mode):
                errors.append(UserError(f"upstream: {relative}: not a file, folder or link"))
    raise_all(errors)
    _check_links(links, path.name)
    return UpstreamSource(
        path.name, FolderTree(path), files, links, ref, "", _detect_version(path.name, files)
    )


def _read_tarball(data: bytes, file_name: str, name: str, ref: str) -> UpstreamSource:
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            files, links, commit = _read_members(archive, file_name)
    except (tarfile.TarError, EOFError, OSError) as error:
        message = f"upstream.source: {file_name}: not a readable tarball: {error}"
        raise UserError(message) from error
    top = _find_single_top(files, links)
    if top:
        files = {path[len(top) + 1 :]: data for path, data in files.items()}
        links = {path[len(top) + 1 :]: to for path, to in links.items()}
    _check_links(links, file_name)
    version = _detect_version(top, files) or _detect_version(_TARBALL.sub("", file_name), {})
    return UpstreamSource(name, MemoryTree(files, links), files, links, ref, commit, version)


def _read_members(
    archive: tarfile.TarFile, file_name: str
) -> tuple[dict[str, bytes], dict[str, str], str]:
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    errors: list[UserError] = []
    total = 0

    def refuse_member(why: str) -> None:
        errors.append(UserError(f"upstream.source: {file_name}: {member.name} {why}"))

    for member in archive:
        path = posixpath.normpath(member.name)
        total += member.size
        if total > _MAX_BYTES:
            raise UserError(
                f"upstream.source: {file_name}: its files are larger than {_MAX_BYTES >> 30} GiB"
            )
        if escapes_root(path):
            refuse_member("leads out of the tarball")
        elif ".git" in path.split("/") or member.isdir():
            continue
        elif member.issym():
            links[path] = member.linkname
        elif member.isfile() or member.islnk():
            if member.islnk() and posixpath.normpath(member.linkname) not in files:
                refuse_member(f"is a hard link to {member.linkname}, which does not come before it")
                continue
            stream = archive.extractfile(member)
            files[path] = stream.read() if stream is not None else b""
        else:
            refuse_member("is not a file, folder or link")
    raise_all(errors)
    # `git archive` and GitHub's tarballs name their commit here.
    commit = archive.pax_headers.get("comment", "")
    return files, links, commit if re.fullmatch(r"[0-9a-f]{40,64}", commit) else ""


def _find_single_top(files: Mapping[str, bytes], links: Mapping[str, str]) -> str:
    tops = {path.partition("/")[0] for path in (*files, *links)}
    if len(tops) != 1 or any("/" not in path for path in (*files, *links)):
        return ""
    (top,) = tops
    return "" if top in _OWN_FOLDERS else top


def _check_links(links: Mapping[str, str], name: str) -> None:
    raise_all(
        [
            UserError(
                f"upstream.source: {name}: {path} is a link that leads out of it, or in a circle:"
                f" {to}"
            )
            for path, to in sorted(links.items())
            if resolve_links(path, links.get) is None
        ]
    )


def _detect_version(name: str, files: Mapping[str, Path | bytes]) -> str:
    if (match := _VERSION.search(name)) is not None:
        return match["version"]
    if (data := files.get("VERSION")) is not None:
        with contextlib.suppress(UnicodeDecodeError):
            words = read_content(data).decode("utf-8").split()
            if len(words) == 1:
                return words[0]
    return ""
