"""Classify a kustomization's reference as a git repository, a file by URL, or a local path.

Source: ``internal/git/repospec.go`` and ``internal/loader`` of kustomize's API
(sigs.k8s.io/kustomize/api@v0.21.1). Unlike there, where a host keeps its separator
(``git@host:``), the clone URL is kept whole, as kustomize would pass it to git.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs, urlsplit

Accepts = Literal["any", "folder", "file"]
"""What kustomize accepts in a field: a file or a base, only a base, or only a file."""

DEFAULT_TIMEOUT = 27.0
"""Seconds that kustomize gives git when the URL has no ``timeout``."""

_SCHEMES = ("ssh://", "https://", "http://", "file://")
_USER = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*@")
_FILE_NAME = re.compile(r"\.(?:ya?ml|json|env|txt|conf|ini|cfg|properties|sh|py|crt|pem)$", re.I)
_SHORTHAND = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*//?[^?]*\?(?:.*&)?(?:ref|version)=.")
_GO_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:h|ms|m|s))+")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class NotRemote(ValueError):
    """Kustomize would not read the text as a git URL. The message says why."""


@dataclass(frozen=True, slots=True)
class RemoteRepo:
    """A folder in a git repository.

    Attributes:
        clone_url: The URL that git fetches from.
        host: Host name, with the port but without the user; ``file`` for ``file://``.
        repo: Path of the repository on the host, without ``.git`` and without outer slashes.
        path: Folder in the repository, POSIX, normalised; empty for its root.
        ref: Branch, tag or commit; empty for the default branch.
        submodules: Whether kustomize would fetch submodules as well.
        timeout: Seconds that the URL allows git.
    """

    clone_url: str
    host: str
    repo: str
    path: str
    ref: str = ""
    submodules: bool = True
    timeout: float = DEFAULT_TIMEOUT

    @property
    def mount(self) -> str:
        """The repository's path in a folder of remotes: ``HOST/ORG/REPO@REF``."""
        return f"{self.host}/{self.repo}@{self.ref or 'HEAD'}"

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs that ``upstream.remotes`` may use for the repository, as written first."""
        spellings = [self.clone_url]
        if self.host != "file":
            spellings += [f"https://{self.host}/{self.repo}", f"ssh://{self.host}/{self.repo}"]
        return tuple(dict.fromkeys(spellings))


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that is fetched by HTTP."""

    url: str

    @property
    def mount(self) -> str:
        """The file's path in a folder of remotes: ``HOST/PATH``, with the query if any."""
        parts = urlsplit(self.url)
        name = (
            f"{parts.netloc.rpartition('@')[2]}{posixpath.normpath('/' + parts.path.lstrip('/'))}"
        )
        return f"{name}?{parts.query.replace('/', '_')}" if parts.query else name

    @property
    def urls(self) -> tuple[str, ...]:
        return (self.url,)


@dataclass(frozen=True, slots=True)
class LocalPath:
    """A path relative to the kustomization's folder."""

    path: str


Remote = RemoteRepo | RemoteFile
ReferenceTarget = RemoteRepo | RemoteFile | LocalPath


def classify_reference(text: str, accepts: Accepts = "any") -> ReferenceTarget:
    """Return what kustomize would take a reference for.

    Kustomize requests an http(s) URL and takes it for a repository when that fails. This function
    decides without a request: by git's markers (``//``, ``.git``, ``ref=``), then by the file
    name's ending. ``org/repo//path?ref=``, which kustomize no longer reads, still means GitHub.

    Args:
        text: The reference as written.
        accepts: What the field that has the reference accepts.
    """
    web = _is_web(text)
    if accepts == "file":
        return RemoteFile(text) if web else LocalPath(text)
    try:
        repo = parse_repo(text)
    except NotRemote:
        if web:
            return RemoteFile(text)
        if _SHORTHAND.match(text) and not text.startswith((".", "/")):
            return parse_repo("https://github.com/" + text)
        return LocalPath(text)
    if not web or accepts == "folder":
        return repo
    bare, _, query = text.partition("?")
    if _has_marker(bare) or any(key in parse_qs(query) for key in ("ref", "version", "submodules")):
        return repo
    return RemoteFile(text) if _FILE_NAME.search(bare) else repo


def parse_repo(text: str) -> RemoteRepo:
    """Read a git URL as kustomize's ``NewRepoSpecFromURL`` does.

    Raises:
        NotRemote: Kustomize would not take the text for a repository.
    """
    if text.startswith("/"):
        raise NotRemote("an absolute path")
    bare, _, query = text.partition("?")
    ref, timeout, submodules = _parse_query(query)
    prefix, host, rest, is_file = _split_host(bare)
    repo, path = _split_path(rest, whole=is_file)
    name = "/".join(part for part in repo.split("/") if part not in ("", ".", ".."))
    return RemoteRepo(
        clone_url=prefix + repo,
        host=host,
        repo=name.removesuffix(".git"),
        path=path,
        ref=ref,
        submodules=submodules,
        timeout=timeout,
    )


def _is_web(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def _has_marker(bare: str) -> bool:
    rest = bare.partition("://")[2]
    return "//" in rest or "_git/" in rest or ".git/" in rest or rest.endswith(".git")


def _split_host(text: str) -> tuple[str, str, str, bool]:
    """Return the start of git's URL, the bare host, the rest, and whether it is ``file://``."""
    rest = text[5:] if text.lower().startswith("git::") else text
    scheme = next((s for s in _SCHEMES if rest.lower().startswith(s)), "")
    rest = rest[len(scheme) :]
    match = _USER.match(rest)
    user = match.group() if match else ""
    rest = rest[len(user) :]
    github = rest.lower().startswith(("github.com/", "github.com:"))
    scp = not scheme and bool(user or github)
    if not scheme and not scp:
        raise NotRemote("neither a scheme nor a user name")
    if scheme == "file://":
        return scheme, "file", user + rest, True
    at = rest.find("/")
    colon = rest.find(":")
    if scp and (at == -1 or 0 < colon < at):
        at = colon
    if at == -1:
        raise NotRemote("no repository after the host")
    prefix, rest = rest[: at + 1], rest[at + 1 :]
    if github:
        over_ssh = scheme == "ssh://" or bool(user)
        return (
            (f"{user}github.com:" if over_ssh else "https://github.com/"),
            "github.com",
            rest,
            False,
        )
    host = prefix.rstrip("/:").rpartition("@")[2].lower()
    if not host or not rest:
        raise NotRemote("no repository after the host")
    return scheme + user + prefix, host, rest, False


def _split_path(rest: str, *, whole: bool) -> tuple[str, str]:
    """Return the repository's path and the folder in it."""
    if "_git/" in rest:
        head, _, tail = rest.partition("_git/")
        name, _, path = tail.partition("/")
        repo = f"{head}_git/{name}"
    elif "//" in rest:
        repo, _, path = rest.partition("//")
    elif ".git" in rest:
        head, _, path = rest.partition(".git")
        repo = f"{head}.git"
    elif whole:
        repo, path = rest, ""
    else:
        parts = rest.split("/")
        if len(parts) < 2:
            raise NotRemote("no ORG/REPO after the host")
        repo, path = "/".join(parts[:2]), "/".join(parts[2:])
    if not repo:
        raise NotRemote("no repository after the host")
    clean = posixpath.normpath(path.lstrip("/")) if path.strip("/") else ""
    if clean == ".." or clean.startswith("../"):
        raise NotRemote("the path leaves the repository")
    return repo, "" if clean == "." else clean


def _parse_query(query: str) -> tuple[str, float, bool]:
    # Go's url.ParseQuery refuses these; kustomize then ignores the whole query.
    broken = ";" in query or re.search(r"%(?![0-9a-fA-F]{2})", query)
    values = {} if broken else {key: found[0] for key, found in parse_qs(query).items()}
    ref = values.get("ref") or values.get("version") or ""
    timeout = DEFAULT_TIMEOUT
    duration = values.get("timeout", "")
    if duration.isascii() and duration.isdigit() and int(duration) > 0:
        timeout = float(duration)
    elif _GO_DURATION.fullmatch(duration):
        parts = re.findall(r"(\d+(?:\.\d+)?)(h|ms|m|s)", duration)
        timeout = sum(float(number) * _UNITS[unit] for number, unit in parts) or DEFAULT_TIMEOUT
    submodules = values.get("submodules", "").lower() not in ("0", "f", "false")
    return ref, timeout, submodules
