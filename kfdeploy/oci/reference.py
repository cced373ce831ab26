"""Parse references to images by Docker's reference grammar.

Grammar and limits: ``reference.go``, ``regexp.go`` and ``normalize.go`` of the distribution
project's reference library (github.com/distribution/reference@v0.6.0).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_TAG = r"[\w][\w.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(
    rf"(?P<name>(?:(?P<host>{_HOST})/)?(?P<path>{_COMPONENT}(?:/{_COMPONENT})*))"
    rf"(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?",
    re.ASCII,
)
DIGEST = re.compile(r"sha(?:256:[0-9a-f]{64}|384:[0-9a-f]{96}|512:[0-9a-f]{128})")
"""A digest that images have: other algorithms are legal in a reference, and unused."""
PATH_MAX = 255
"""Characters of a repository's path."""
DEFAULT_HOST = "docker.io"
_OFFICIAL = "library/"


class InvalidImageRef(ValueError):
    """The text is no reference; the message says why."""


@dataclass(frozen=True, slots=True, order=True)
class ImageRef:
    """An image reference, normalised: ``host/path[:tag][@digest]``.

    ``host`` is ``docker.io`` where none was written, and ``path`` then has its ``library/``.
    ``tag`` and ``digest`` are empty where the reference names none. ``host`` is empty only where
    the first element has a dot and still can't be a host (``a_b.example/x``): like Docker, this
    takes the whole for a path without a host.
    """

    host: str
    path: str
    tag: str = ""
    digest: str = ""

    @classmethod
    @lru_cache(maxsize=8192)
    def parse(cls, text: str) -> ImageRef:
        """Return the reference that Docker's ``ParseNormalizedNamed`` returns.

        Raises:
            InvalidImageRef: Docker would refuse ``text``.
        """
        if re.fullmatch(r"[a-f0-9]{64}", text):
            raise InvalidImageRef(f"{text!r}: 64 hex digits are an image ID, not a repository")
        host, rest = _split_host(text)
        match = _REFERENCE.fullmatch(f"{host}/{rest}")
        if match is None:
            remote = rest.split("@")[0].split(":")[0]
            reason = (
                "a repository name is lower case"
                if remote.lower() != remote
                else "not host/path:tag@digest"
            )
            raise InvalidImageRef(f"{text!r} is no image reference: {reason}")
        if len(match["path"]) > PATH_MAX:
            raise InvalidImageRef(f"{text!r}: repository name longer than {PATH_MAX} characters")
        digest = match["digest"] or ""
        if digest and not is_digest(digest):
            raise InvalidImageRef(f"{text!r}: unsupported or malformed digest {digest!r}")
        return cls(match["host"] or "", match["path"], match["tag"] or "", digest)

    @classmethod
    @lru_cache(maxsize=8192)
    def try_parse(cls, text: str) -> ImageRef | None:
        """Return the reference that ``text`` is; None where Docker would refuse it."""
        try:
            return cls.parse(text)
        except InvalidImageRef:
            return None

    @property
    def repository(self) -> str:
        """Return ``host/path``."""
        return f"{self.host}/{self.path}" if self.host else self.path

    def with_default_tag(self) -> ImageRef:
        """Return the reference, with ``:latest`` where it names neither tag nor digest."""
        if self.tag or self.digest:
            return self
        return ImageRef(self.host, self.path, "latest")

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"


@dataclass(frozen=True, slots=True, order=True)
class WrittenRef:
    """A reference as somebody wrote it, and what it means.

    Two spellings of one image (``mysql:8`` and ``docker.io/library/mysql:8``) are two of these with
    the same ``parsed``. Files and results have the text as it was found.

    Attributes:
        text: the exact text; the value is compared, sorted and printed by it.
        parsed: the normalised reference.
    """

    text: str
    parsed: ImageRef = field(compare=False)

    @classmethod
    def parse(cls, text: str) -> WrittenRef:
        """Return ``text`` with the reference that it is.

        Raises:
            InvalidImageRef: Docker would refuse ``text``.
        """
        return cls(text, ImageRef.parse(text))

    @classmethod
    def try_parse(cls, text: str) -> WrittenRef | None:
        """Return ``text`` with the reference that it is; None where Docker would refuse it."""
        parsed = ImageRef.try_parse(text)
        return cls(text, parsed) if parsed else None

    def __str__(self) -> str:
        return self.text


def _split_host(text: str) -> tuple[str, str]:
    """Return the registry host and the rest; a first element is a host if it looks like one."""
    first, slash, rest = text.partition("/")
    is_host = "." in first or ":" in first or first == "localhost" or first.lower() != first
    if not (slash and is_host):
        host, rest = DEFAULT_HOST, text
    else:
        host = DEFAULT_HOST if first == "index.docker.io" else first
    if host == DEFAULT_HOST and "/" not in rest:
        rest = _OFFICIAL + rest
    return host, rest


def is_digest(text: str) -> bool:
    """Return whether the text is a digest: ``sha256:HEX``, or of SHA-384 or SHA-512."""
    return DIGEST.fullmatch(text) is not None


def is_image_ref(text: str) -> bool:
    """Return whether Docker would accept ``text`` as a reference."""
    return ImageRef.try_parse(text) is not None


def host_qualified_path(ref: ImageRef) -> str:
    """Return ``HOST/PATH`` of a reference as a legal repository path.

    A host may hold what a path may not: ``localhost:5000`` becomes ``localhost-5000``,
    ``[::1]:5000`` becomes ``1--5000``, and upper case becomes lower case.
    """
    if not ref.host:
        return ref.path
    element = re.sub(r"[^a-z0-9.-]", "-", ref.host.lower()).strip("-.")
    return f"{element}/{ref.path}"
