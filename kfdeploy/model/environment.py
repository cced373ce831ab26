"""Where an image is pulled from, and where the private registry has it.

Both are plain rules over names: nothing here asks a registry. A Helmfile template evaluates the
second one too, from the lock's annotations ``kfdeploy.io/path`` and ``kfdeploy.io/tag``:

    elements = prefix/ + (path, without its first element unless naming.keepHost)
    naming.maxDepth: the elements from that number on are one, joined by '-'
    rendered = host/elements[:tag]@digest
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kfdeploy.errors import UserError, raise_all
from kfdeploy.model.image import ImageRef, InvalidImageRef, neutral_path

if TYPE_CHECKING:
    from kfdeploy.model.lockfile import LockedImage
    from kfdeploy.model.workspace import PrivateRegistry

_PATH_MAX: Final = 255
_DIGITS: Final = 12
ANY_HOST: Final = "*"


@dataclass(frozen=True, slots=True)
class Target:
    """Where the private registry has an image.

    Attributes:
        repository: ``HOST/PATH``, without tag and digest.
        push_tag: the tag it is pushed as; never empty, so that no registry's garbage collection
            takes the image.
        rendered: what manifests say: ``HOST/PATH[:TAG]@DIGEST``.
    """

    repository: str
    push_tag: str
    rendered: str

    @property
    def reference(self) -> str:
        """``HOST/PATH:TAG``, as it is pushed."""
        return f"{self.repository}:{self.push_tag}"


class Mirror:
    """The names that images have in one private registry."""

    def __init__(self, registry: PrivateRegistry) -> None:
        """Take the rule from ``registry``.

        Raises:
            UserError: the prefix alone is as deep as ``naming.maxDepth`` allows.
        """
        self._host = registry.host
        self._prefix = tuple(e for e in registry.prefix.split("/") if e)
        self._keep_host = registry.naming.keep_host
        self._depth = registry.naming.max_depth
        if self._depth is not None and len(self._prefix) >= self._depth:
            raise UserError(
                f"registries.private.naming.maxDepth: {self._depth} leaves no element for an image"
                f" below the prefix {registry.prefix!r}",
                hint=f"set it to {len(self._prefix) + 1} or more; the prefix counts",
            )

    @property
    def host(self) -> str:
        """HOST or HOST:PORT of the private registry."""
        return self._host

    def path(self, neutral: str) -> str:
        """The repository path for ``neutral`` (`neutral_path`), with the prefix.

        ``maxDepth`` is what the registry allows a repository, so the prefix counts: with prefix
        ``kf`` and depth 3, ``gcr.io/a/b/c`` is ``kf/gcr.io/a-b-c``.
        """
        elements = neutral.split("/")
        if not self._keep_host:
            elements = elements[1:] or elements
        elements = [*self._prefix, *elements]
        if self._depth is not None and len(elements) > self._depth:
            last = "-".join(elements[self._depth - 1 :])
            elements = [*elements[: self._depth - 1], last]
        return "/".join(elements)

    def target(self, image: LockedImage) -> Target:
        """Where ``image`` goes: by its reference as found, so that a substitute changes nothing."""
        path = self.path(image.path)
        repository = f"{self._host}/{path}"
        tag = f":{image.tag}" if image.tag else ""
        return Target(
            repository=repository,
            push_tag=image.tag or digest_tag(image.digest),
            rendered=f"{repository}{tag}@{image.digest}",
        )

    def targets(self, images: Iterable[LockedImage]) -> dict[str, Target]:
        """The target of each image, by the image's id.

        Several ids of one image may share a target.

        Raises:
            UserError: two different images on one repository and tag (all such pairs are named),
                or a repository's path is longer than Docker allows.
        """
        result: dict[str, Target] = {}
        first: dict[str, LockedImage] = {}
        errors: list[UserError] = []
        for image in sorted(images, key=lambda i: i.id):
            target = self.target(image)
            result[image.id] = target
            if len(target.repository) - len(self._host) - 1 > _PATH_MAX:
                errors.append(
                    UserError(
                        f"{image.id}: its repository in the private registry would have more than"
                        f" {_PATH_MAX} characters: {target.repository}",
                        hint="shorten registries.private.prefix, or set naming.keepHost: false",
                    )
                )
            other = first.setdefault(target.reference, image)
            if other.digest != image.digest:
                errors.append(
                    UserError(
                        f"{other.id} and {image.id} are different images and would both be"
                        f" {target.reference}",
                        hint="change registries.private.naming (keepHost, maxDepth), or leave one"
                        " out by images.exclude",
                    )
                )
        raise_all(errors)
        return result


def digest_tag(digest: str) -> str:
    """The tag of an image that was found by digest alone: ``digest-<first 12 hex>``."""
    return f"digest-{digest.partition(':')[2][:_DIGITS]}"


class Sources:
    """`registries.sources`: where images are really pulled from."""

    def __init__(self, mapping: Mapping[str, str]) -> None:
        """Take ``source prefix: where``; ``*`` is any host.

        Raises:
            UserError: a key or value that is no HOST[/PATH], all of them at once.
        """
        self._rules: dict[str, str] = {}
        errors: list[UserError] = []
        for key, value in sorted(mapping.items()):
            where = f"registries.sources[{key!r}]"
            try:
                prefix = ANY_HOST if key == ANY_HOST else _prefix(key)
                self._rules[prefix] = _prefix(value)
            except InvalidImageRef as error:
                errors.append(UserError(f"{where}: {error}", hint="write HOST or HOST/PATH"))
        raise_all(errors)

    def locate(self, ref: ImageRef) -> ImageRef:
        """The reference to ask for instead of ``ref``; tag and digest stay.

        The longest prefix that ends at a path element wins, then ``*``, which keeps HOST/PATH
        below the place it names.
        """
        elements = ref.repository.split("/")
        for count in range(len(elements), 0, -1):
            place = self._rules.get("/".join(elements[:count]))
            if place is not None:
                return _at(place, elements[count:], ref)
        if (place := self._rules.get(ANY_HOST)) is not None:
            return _at(place, neutral_path(ref).split("/"), ref)
        return ref


def _prefix(text: str) -> str:
    host, _, path = text.rstrip("/").partition("/")
    if host == "index.docker.io":
        host = "docker.io"
    try:
        # Two elements more, so that no `library/` is put in between.
        parsed = ImageRef.parse(f"{host}/{path}/x/x" if path else f"{host}/x/x")
    except InvalidImageRef as error:
        raise InvalidImageRef(f"{text!r} is no HOST[/PATH]") from error
    if parsed.host != host:
        raise InvalidImageRef(
            f"{text!r} does not begin with a registry host: it needs a dot, a port, or to be"
            " localhost"
        )
    return f"{host}/{path}" if path else host


def _at(place: str, rest: list[str], ref: ImageRef) -> ImageRef:
    host, _, path = place.partition("/")
    return ImageRef(host, "/".join([*([path] if path else []), *rest]), ref.tag, ref.digest)
