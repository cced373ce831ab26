"""Fetch a commit with git, and read its tree byte for byte.

Fetched repositories are bare. Nothing is checked out, so that line-end conversion, filters and
``export-ignore`` change no file. Authentication is git's own (ssh config, credential helpers);
kfdeploy never asks for a password.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kfdeploy.errors import UserError
from kfdeploy.file_tree import FileKind, resolve_links
from kfdeploy.files import is_safe_path, sha256_hex
from kfdeploy.programs.process import ProcessResult, ProgramFailed, run_program
from kfdeploy.redact import redact_url

FETCH_TIMEOUT: Final = 600.0
_LOCAL_TIMEOUT: Final = 120.0
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ABBREVIATED = re.compile(r"[0-9a-f]{7,63}")
_LINK_MODE: Final = "120000"
_SUBMODULE_MODE: Final = "160000"


@dataclass(frozen=True, slots=True)
class _TreeEntry:
    mode: str
    oid: str


@dataclass(frozen=True, slots=True)
class FetchedCommit:
    """A commit of a repository that is on this machine."""

    git_dir: Path
    commit: str


def is_repository(folder: Path) -> bool:
    """Return whether the folder is a git repository of its own, bare or with a work tree."""
    if (folder / ".git").exists():
        return True
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir()


def fetch_commit(
    url: str, ref: str, cache: Path, *, timeout: float = FETCH_TIMEOUT
) -> FetchedCommit:
    """Fetch one commit of a repository into the cache.

    Args:
        url: anything that git takes; a password in it is passed in the environment, not in argv.
        ref: branch, tag or commit; empty for the repository's default branch.
        cache: folder for bare repositories, one for each URL.
        timeout: seconds for one call of git.

    Raises:
        UserError: git fails; with its message, and a hint.
    """
    if ref.startswith("-") or url.startswith("-"):
        raise UserError(f"{redact_url(url)}: {ref!r} is not a ref")
    git_dir = cache / sha256_hex(url.encode())[:16]
    if not (git_dir / "HEAD").is_file():
        try:
            git_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{cache}: can't be written: {error.strerror}") from error
        _run_git(git_dir, ["init", "--bare", "--quiet"])
    if _COMMIT.fullmatch(ref) and _has_commit(git_dir, ref):
        return FetchedCommit(git_dir, ref)
    wanted = ref or "HEAD"
    try:
        _run_fetch(git_dir, url, ["--depth=1", "kfdeploy", wanted], timeout)
        return FetchedCommit(git_dir, _rev_parse(git_dir, "FETCH_HEAD"))
    except ProgramFailed as error:
        # A server gives a commit only by its full name, and some only as part of a branch.
        if not _ABBREVIATED.fullmatch(ref) or not _is_missing_ref(error.stderr):
            raise _explain_failure(error, url, ref) from error
    try:
        _run_fetch(git_dir, url, ["kfdeploy", "+refs/*:refs/kfdeploy/*"], timeout, unshallow=True)
        return FetchedCommit(git_dir, _rev_parse(git_dir, ref))
    except ProgramFailed as error:
        raise _explain_failure(error, url, ref) from error


def read_head(folder: Path) -> str | None:
    """Return the commit checked out in a folder; None when there is none."""
    found = _run_git(folder / ".git", ["rev-parse", "--verify", "--quiet", "HEAD"], check=False)
    return found.stdout.decode().strip() if found.code == 0 else None


def resolve_ref(folder: Path, ref: str) -> str | None:
    """Return the commit that a ref names in a work tree's repository; None if it names none."""
    if ref.startswith("-"):
        return None
    argv = ["rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"]
    found = _run_git(folder / ".git", argv, check=False)
    return found.stdout.decode().strip() if found.code == 0 else None


def find_head_tag(folder: Path) -> str | None:
    """Return a tag of the commit checked out in a folder; None when it has none."""
    argv = ["describe", "--tags", "--exact-match", "HEAD"]
    found = _run_git(folder / ".git", argv, check=False)
    return found.stdout.decode().strip() if found.code == 0 else None


class GitTree:
    """A commit's tree. Files are read from the repository when they are asked for."""

    def __init__(self, fetched: FetchedCommit) -> None:
        self._git_dir = fetched.git_dir
        self._entries: dict[str, _TreeEntry] = {}
        self._folders = {""}
        listing = _run_git(fetched.git_dir, ["ls-tree", "-r", "-z", "--full-tree", fetched.commit])
        for line in listing.stdout.decode("utf-8", "surrogateescape").split("\0"):
            if line:
                facts, _, path = line.partition("\t")
                mode, _, oid = facts.split(" ")
                # git checks none of this when it fetches, only when it checks out.
                if not is_safe_path(path) or ".git" in path.lower().split("/"):
                    raise UserError(
                        f"commit {fetched.commit[:12]}: {path!a} is no path that a repository"
                        " may have",
                        hint="the repository is damaged, or was made to write elsewhere",
                    )
                self._entries[path] = _TreeEntry(mode, oid)
                while path := posixpath.dirname(path):
                    self._folders.add(path)
        self._blobs: dict[str, bytes] = {}

    def get_kind(self, path: str) -> FileKind | None:
        real = self._resolve_path(path)
        if real is None:
            return None
        if real in self._folders:
            return "folder"
        entry = self._entries.get(real)
        return "file" if entry is not None and entry.mode != _SUBMODULE_MODE else None

    def find_submodule(self, path: str) -> str | None:
        """Return the submodule that a path lies in, whose files are not part of the commit."""
        at = path
        while at:
            entry = self._entries.get(at)
            if entry is not None and entry.mode == _SUBMODULE_MODE:
                return at
            at = posixpath.dirname(at)
        return None

    def read_file(self, path: str) -> bytes:
        real = self._resolve_path(path)
        entry = self._entries.get(real) if real is not None else None
        if entry is None:
            raise UserError(f"{path}: no such file in the repository")
        return self._get_blob(entry.oid)

    def list_files(self, folder: str) -> Iterator[str]:
        inside = f"{folder}/" if folder else ""
        for path, entry in sorted(self._entries.items()):
            if entry.mode != _SUBMODULE_MODE and path.startswith(inside):
                yield path

    def load_files(self) -> tuple[dict[str, bytes], dict[str, str]]:
        """Return all files by path, and all links with their targets."""
        files: dict[str, bytes] = {}
        links: dict[str, str] = {}
        wanted = {path: e for path, e in sorted(self._entries.items()) if e.mode != _SUBMODULE_MODE}
        self._load_blobs({entry.oid for entry in wanted.values()})
        for path, entry in wanted.items():
            if entry.mode == _LINK_MODE:
                links[path] = self._blobs[entry.oid].decode("utf-8", "surrogateescape")
            else:
                files[path] = self._blobs[entry.oid]
        return files, links

    def _get_blob(self, oid: str) -> bytes:
        if oid not in self._blobs:
            self._load_blobs({oid})
        return self._blobs[oid]

    def _load_blobs(self, oids: set[str]) -> None:
        names = sorted(oids - self._blobs.keys())
        if not names:
            return
        stdin = "".join(f"{oid}\n" for oid in names).encode()
        out = _run_git(self._git_dir, ["cat-file", "--batch"], stdin=stdin).stdout
        at = 0
        for oid in names:
            end = out.index(b"\n", at)
            size = int(out[at:end].split(b" ")[2])
            self._blobs[oid] = out[end + 1 : end + 1 + size]
            at = end + 2 + size

    def _resolve_path(self, path: str) -> str | None:
        """Return the path without links; None when it leads out of the repository."""
        return resolve_links(path, self._read_link)

    def _read_link(self, path: str) -> str | None:
        entry = self._entries.get(path)
        if entry is None or entry.mode != _LINK_MODE:
            return None
        return self._get_blob(entry.oid).decode("utf-8", "surrogateescape")


def _run_git(
    git_dir: Path,
    argv: Sequence[str],
    *,
    stdin: bytes | None = None,
    env: dict[str, str] | None = None,
    timeout: float = _LOCAL_TIMEOUT,
    check: bool = True,
) -> ProcessResult:
    return run_program(
        ["git", f"--git-dir={git_dir}", *argv],
        stdin=stdin,
        env={"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", **(env or {})},
        timeout=timeout,
        check=check,
        what=f"git {argv[0]}",
    )


def _run_fetch(
    git_dir: Path, url: str, argv: Sequence[str], timeout: float, *, unshallow: bool = False
) -> None:
    # The URL travels as configuration in the environment: argv is there for every user to read.
    given = os.environ.get("GIT_CONFIG_COUNT", "0")
    count = int(given) if given.isdigit() else 0
    env = {
        "GIT_CONFIG_COUNT": str(count + 1),
        f"GIT_CONFIG_KEY_{count}": "remote.kfdeploy.url",
        f"GIT_CONFIG_VALUE_{count}": url,
    }
    if "GIT_SSH_COMMAND" not in os.environ and "GIT_SSH" not in os.environ:
        configured = _run_git(git_dir, ["config", "--get", "core.sshCommand"], check=False)
        if configured.code != 0:
            env["GIT_SSH_COMMAND"] = "ssh -o BatchMode=yes"
    deeper = ["--unshallow"] if unshallow and (git_dir / "shallow").exists() else []
    _run_git(
        git_dir,
        ["fetch", "--quiet", "--force", "--no-tags", "--no-write-commit-graph", *deeper, *argv],
        env=env,
        timeout=timeout,
    )


def _rev_parse(git_dir: Path, name: str) -> str:
    argv = ["rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}"]
    return _run_git(git_dir, argv).stdout.decode().strip()


def _has_commit(git_dir: Path, commit: str) -> bool:
    return _run_git(git_dir, ["cat-file", "-e", f"{commit}^{{commit}}"], check=False).code == 0


_MISSING_REF_PHRASES: Final = ("couldn't find remote ref", "not our ref", "unadvertised object")


def _is_missing_ref(stderr: str) -> bool:
    return any(phrase in stderr for phrase in _MISSING_REF_PHRASES)


@dataclass(frozen=True, slots=True)
class _FailureReport:
    """How a failed fetch is reported.

    Attributes:
        phrases: of git's messages in lower case; one of them is there.
        reason: empty to repeat git's first line.
    """

    phrases: tuple[str, ...]
    reason: str = ""
    hint: str | None = None


_MIRROR_HINT: Final = "name a mirror in `upstream.remotes`"
_FAILURE_REPORTS: Final = (
    _FailureReport(
        (*_MISSING_REF_PHRASES, "needed a single revision"), "it has no branch, tag or commit REF"
    ),
    _FailureReport(
        ("could not resolve host", "network is unreachable"),
        "the host can't be reached",
        _MIRROR_HINT,
    ),
    _FailureReport(
        ("terminal prompts disabled", "authentication failed"),
        "it asks for a user name and password",
        f"set up git's credential helper, or {_MIRROR_HINT}",
    ),
    _FailureReport(
        ("permission denied", "host key verification failed"),
        hint="`git ls-remote URL` must work without a question",
    ),
)


def _explain_failure(error: ProgramFailed, url: str, ref: str) -> UserError:
    """Return git's failure in plain words, without the URL's password."""
    shown = redact_url(url)
    reason, hint = _find_reason(error)
    text = f"can't fetch {shown}: {reason.replace('REF', repr(ref))}".replace(url, shown)
    return UserError(text, hint=hint and hint.replace("URL", shown))


def _find_reason(error: ProgramFailed) -> tuple[str, str | None]:
    message = error.stderr.strip()
    if error.code is None:
        return "no answer in time", _MIRROR_HINT
    lower = message.lower()
    for report in _FAILURE_REPORTS:
        if any(phrase in lower for phrase in report.phrases):
            return report.reason or message.splitlines()[0], report.hint
    # The first message is about the repository; general advice follows it.
    lines = [line for line in message.splitlines() if line.startswith(("fatal:", "error:"))]
    first = lines[0].partition(": ")[2] if lines else message
    return first or f"git exited {error.code}", None
