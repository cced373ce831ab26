"""Names of images: where they are pulled from, and where the private registry has them.

Both are rules over names: nothing here asks a registry. A Helmfile template evaluates the second
one too, from the lock's annotations ``kfdeploy.io/path`` and ``kfdeploy.io/tag``:

    elements = prefix/ + (path, without its first element unless naming.keepHost)
    naming.maxDepth: the elements from that number on are one, joined by '-'
    naming.maxLength: a longer path is cut and ends in '-' and 8 digits of its sha256
    rendered = host/elements[:tag]@digest
    digest: the image's; that of its index reduced to the environment's platforms, where it has any
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from kfdeploy.errors import UserError, raise_all
from kfdeploy.oci.reference import (
    PATH_MAX,
    ImageRef,
    InvalidImageRef,
    WrittenRef,
    host_qualified_path,
)

if TYPE_CHECKING:
    from kfdeploy.images.lockfile import LockedImage
    from kfdeploy.oci.registry.settings import PrivateRegistry

_DIGITS: Final = 12
_SUM_DIGITS: Final = 8
"""Of a cut path's sum: two of some hundred images are alike in one of 100,000 cases."""
ANY_HOST: Final = "*"


@dataclass(frozen=True, slots=True)
class MirrorRef:
    """The place of an image in the private registry.

    Attributes:
        repository: without tag and digest.
        tag: that manifests name; empty for an image that was found by digest alone.
        digest: what the private registry is to have there.
    """

    repository: ImageRef
    tag: str
    digest: str

    @property
    def push_tag(self) -> str:
        """The tag it is pushed as.

        It is never empty: a registry's garbage collection takes what has no tag.
        """
        return self.tag or self.digest_tag

    @property
    def reference(self) -> ImageRef:
        """The reference that it is pushed as: ``HOST/PATH:TAG``."""
        return replace(self.repository, tag=self.push_tag)

    @property
    def pinned_reference(self) -> ImageRef:
        """The reference in manifests: ``HOST/PATH[:TAG]@DIGEST``."""
        return replace(self.repository, tag=self.tag, digest=self.digest)

    @property
    def digest_tag(self) -> str:
        """The tag to push as where `push_tag` is another image's and the registry moves no tag."""
        return make_digest_tag(self.digest)

    def immovable_tag_error(self, image_id: WrittenRef, found: str) -> UserError:
        """Return the error of a tag that is another image's and that the registry does not move.

        It concerns images that manifests name by their tag alone.

        Args:
            found: the digest that the tag has.
        """
        return UserError(
            f"{image_id}: {self.reference} is {found} and would have to be {self.digest}:"
            " manifests can name this image by its tag alone, and with"
            " registries.private.immutableTags no tag is moved",
            hint="delete the tag in the registry, or mirror below another"
            " registries.private.prefix",
        )


class MirrorNaming:
    """The names and digests that images have in one private registry."""

    def __init__(self, registry: PrivateRegistry, platforms: Sequence[str] = ()) -> None:
        """Take the rule from ``registry``.

        Args:
            platforms: the environment's, sorted: what indexes are reduced to; empty for all.

        Raises:
            UserError: the prefix alone is as deep or long as ``naming`` allows.
        """
        self.platforms = tuple(platforms)
        self._host = registry.host
        self._prefix = tuple(e for e in registry.prefix.split("/") if e)
        self._keep_host = registry.naming.keep_host
        self._max_depth = registry.naming.max_depth
        if self._max_depth is not None and len(self._prefix) >= self._max_depth:
            raise UserError(
                f"registries.private.naming.maxDepth: {self._max_depth} leaves no"
                " element for an image"
                f" below the prefix {registry.prefix!r}",
                hint=f"set it to {len(self._prefix) + 1} or more; the prefix counts",
            )
        self._max_length = registry.naming.max_length
        # At least one character of the image's own path stays before the sum.
        least = len("/".join([*self._prefix, "x"])) + 1 + _SUM_DIGITS
        if self._max_length is not None and self._max_length < least:
            raise UserError(
                f"registries.private.naming.maxLength: {self._max_length} leaves no"
                " room for an image"
                f" below the prefix {registry.prefix!r}",
                hint=f"set it to {least} or more; the prefix counts",
            )

    @property
    def host(self) -> str:
        """HOST or HOST:PORT of the private registry."""
        return self._host

    def repository_path(self, neutral: str) -> str:
        """Return the repository path for a `host_qualified_path`, with the prefix.

        ``maxDepth`` is what the registry allows a repository, so the prefix counts: with prefix
        ``kf`` and depth 3, ``gcr.io/a/b/c`` is ``kf/gcr.io/a-b-c``.
        """
        elements = neutral.split("/")
        if not self._keep_host:
            elements = elements[1:] or elements
        elements = [*self._prefix, *elements]
        if self._max_depth is not None and len(elements) > self._max_depth:
            last = "-".join(elements[self._max_depth - 1 :])
            elements = [*elements[: self._max_depth - 1], last]
        path = "/".join(elements)
        if self._max_length is not None and len(path) > self._max_length:
            total = hashlib.sha256(path.encode()).hexdigest()[:_SUM_DIGITS]
            # What is cut must not end in what stands between words: `a.-` is no legal name.
            path = f"{path[: self._max_length - _SUM_DIGITS - 1].rstrip('/._-')}-{total}"
        return path

    def repository_ref(self, neutral: str) -> ImageRef:
        """Return the repository for a `host_qualified_path`."""
        return ImageRef(self._host, self.repository_path(neutral))

    def expected_digest(self, image: LockedImage) -> str:
        """Return the digest that the private registry is to have; empty if the lock has none."""
        return image.digest_for(self.platforms)

    def mirror_ref(self, image: LockedImage) -> MirrorRef:
        """Return the place of ``image``, by its reference as found: a substitute changes nothing.

        Raises:
            UserError: the lock has no digest for the platforms.
        """
        digest = self.expected_digest(image)
        if not digest:
            raise UserError(
                f"{image.id} is not locked for {', '.join(self.platforms)}",
                hint="run `kfdeploy lock`",
            )
        return MirrorRef(self.repository_ref(image.path), image.tag, digest)

    def mirror_refs(self, images: Iterable[LockedImage]) -> dict[WrittenRef, MirrorRef]:
        """Return the place of each image by its id; several ids of one image may share a place.

        Raises:
            UserError: two different images on one repository and tag (all such pairs are named),
                a repository's path is longer than Docker allows, or an image is not locked for the
                platforms.
        """
        result: dict[WrittenRef, MirrorRef] = {}
        first: dict[ImageRef, tuple[WrittenRef, str]] = {}
        errors: list[UserError] = []
        for image in sorted(images, key=lambda i: i.id):
            try:
                target = self.mirror_ref(image)
            except UserError as error:
                errors.append(error)
                continue
            result[image.id] = target
            if len(target.repository.path) > PATH_MAX:
                errors.append(
                    UserError(
                        f"{image.id}: its repository in the private registry would have more than"
                        f" {PATH_MAX} characters: {target.repository}",
                        hint=f"set registries.private.naming.maxLength: {PATH_MAX}, which cuts it;"
                        " or shorten registries.private.prefix, or set naming.keepHost: false",
                    )
                )
            other, digest = first.setdefault(target.reference, (image.id, target.digest))
            if digest != target.digest:
                errors.append(
                    UserError(
                        f"{other} and {image.id} are different images and would both be"
                        f" {target.reference}",
                        hint="change registries.private.naming (keepHost, maxDepth), or leave one"
                        " out by images.exclude",
                    )
                )
        raise_all(errors)
        return result


def make_digest_tag(digest: str) -> str:
    """Return the tag of an image that was found by digest alone: ``digest-<first 12 hex>``."""
    return f"digest-{digest.partition(':')[2][:_DIGITS]}"


class PullSources:
    """The rules of `registries.sources`: where images are really pulled from."""

    def __init__(self, mapping: Mapping[str, str]) -> None:
        """Take source prefixes and the places that images below them are pulled from.

        The prefix ``*`` is any host.

        Raises:
            UserError: a key or value that is no HOST[/PATH], all of them at once.
        """
        self._rules: dict[str, str] = {}
        errors: list[UserError] = []
        for key, value in sorted(mapping.items()):
            where = f"registries.sources[{key!r}]"
            try:
                prefix = ANY_HOST if key == ANY_HOST else _parse_prefix(key)
                self._rules[prefix] = _parse_prefix(value)
            except InvalidImageRef as error:
                errors.append(UserError(f"{where}: {error}", hint="write HOST or HOST/PATH"))
        raise_all(errors)

    def resolve_ref(self, ref: ImageRef) -> ImageRef:
        """Return the reference to ask for instead of ``ref``; tag and digest stay.

        The longest prefix that ends at a path element wins, then ``*``, which keeps HOST/PATH
        below the place it names.
        """
        elements = ref.repository.split("/")
        for count in range(len(elements), 0, -1):
            place = self._rules.get("/".join(elements[:count]))
            if place is not None:
                return _relocate_ref(place, elements[count:], ref)
        if (place := self._rules.get(ANY_HOST)) is not None:
            return _relocate_ref(place, host_qualified_path(ref).split("/"), ref)
        return ref


def _parse_prefix(text: str) -> str:
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


def _relocate_ref(place: str, rest: list[str], ref: ImageRef) -> ImageRef:
    host, _, path = place.partition("/")
    return ImageRef(host, "/".join([*([path] if path else []), *rest]), ref.tag, ref.digest)
