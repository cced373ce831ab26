"""Attachments of images (signatures, attestations, SBOMs), and the check of signatures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from kfdeploy.errors import UserError
from kfdeploy.images.lockfile import LockedImage
from kfdeploy.oci.attachments import Attachment
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.oci.registry.referrers import AttachmentFinder
from kfdeploy.oci.signing.verify import (
    RegistrySignatureReader,
    SignatureRules,
    UnsignedImage,
    check_signatures,
)

if TYPE_CHECKING:
    from kfdeploy.workspace.settings import Workspace

_PATIENCE: Final = 3.0
"""Seconds to wait for a busy registry: an image is locked without what belongs to it."""


@dataclass(frozen=True, slots=True)
class AttachmentOutcome:
    """The attachments of an image, or the reason why it must not be locked.

    Attributes:
        attached: None if nobody looked for them, or could not.
        note: what is not known, and why; None if all is known.
        error: why the image must not be locked; None if it may be.
        is_refused: the entry of an earlier lock must not stay either.
    """

    attached: tuple[Attachment, ...] | None = None
    note: tuple[Literal["attached", "signature"], str] | None = None
    error: UserError | None = None
    is_refused: bool = False


class AttachmentResolver:
    """Asks registries as `images.attached` and `images.signatures` say; safe for threads."""

    def __init__(
        self, client: RegistryClient, workspace: Workspace, root: Path, *, refresh: bool
    ) -> None:
        """Read the rules of a workspace.

        Args:
            refresh: ask for attachments of images that have not changed, too.

        Raises:
            UserError: keys of `images.signatures` that can't be used.
        """
        self._client = client
        self._wanted = workspace.images.attached
        self._rules = SignatureRules.from_settings(workspace.images.signatures, root)
        self._refresh = refresh
        self._finder = AttachmentFinder(client, patience=_PATIENCE)
        # Without an answer an image that must be signed fails: that is worth waiting for.
        self._patient = AttachmentFinder(client)

    def needs_signature(self, image: ImageRef) -> bool:
        return bool(self._rules.find_for(image))

    def get_known(self, image: ImageRef, known: LockedImage | None) -> AttachmentOutcome | None:
        """Return what the lock before has of an image; None if its registry has to be asked."""
        before = known.attached if known is not None and known.digest == image.digest else None
        if self.needs_signature(image) or (self._wanted and (before is None or self._refresh)):
            return None
        return AttachmentOutcome(before if self._wanted else None)

    def resolve_online(
        self,
        image: ImageRef,
        at: ImageRef,
        platforms: Iterable[str],
        *,
        known: LockedImage | None,
        earlier: Iterable[LockedImage],
        unasked: str,
    ) -> AttachmentOutcome:
        """Ask for the attachments of an image, and check its signatures.

        Args:
            image: the image to lock, at its digest.
            at: the repository to ask.
            platforms: digests of its platforms' manifests.
            known: the entry that the lock before has of the same repository. Attachments of the
                same digest are not asked for again.
            earlier: the entries that the lock before has for the references of the image.
            unasked: why the registry must not be asked for attachments; empty if it may be.
        """
        at = ImageRef(at.host, at.path, "", image.digest)
        before = known.attached if known is not None and known.digest == image.digest else None
        attached = before
        note: tuple[Literal["attached"], str] | None = None
        if self._wanted and (before is None or self._refresh):
            try:
                if unasked:
                    raise RegistryError("busy", unasked)
                attached = self._finder.find_for_image(at, platforms)
            except RegistryError as error:
                note = ("attached", error.message)
        try:
            self._check_signature(image, at, attached)
        except RegistryError as error:
            return AttachmentOutcome(error=error)
        except UnsignedImage as error:
            return AttachmentOutcome(
                error=error, is_refused=not self._are_all_signed(earlier, image, at)
            )
        return AttachmentOutcome(attached if self._wanted else None, note)

    def resolve_offline(self, image: ImageRef, known: LockedImage | None) -> AttachmentOutcome:
        """Return what the lock before has; an image that must be signed and is new is an error."""
        before = known if known is not None and known.digest == image.digest else None
        rules = self._rules.find_for(image)
        if rules and before is None:
            error = UserError(
                f"its signature can't be checked without asking its registry ({rules[0].where})",
                hint="run `kfdeploy lock` where the sources can be reached",
            )
            return AttachmentOutcome(error=error)
        attached = before.attached if before is not None and self._wanted else None
        return AttachmentOutcome(
            attached, ("signature", "no registry may be asked") if rules else None
        )

    def list_unmatched_rules(self, images: Iterable[ImageRef]) -> Iterator[str]:
        """Yield a warning for each rule that is for none of the images: it may have a mistake."""
        listed = list(images)
        for rule in self._rules.rules:
            if not any(rule.matches(image) for image in listed):
                yield f"{rule.where}: no image is {rule.pattern!r}"

    def _check_signature(
        self, image: ImageRef, at: ImageRef, attached: tuple[Attachment, ...] | None
    ) -> None:
        check_signatures(
            image,
            self._rules,
            RegistrySignatureReader(self._client, at),
            attached,
            lambda: self._patient.find_for_manifest(at, image.digest),
        )

    def _are_all_signed(
        self, earlier: Iterable[LockedImage], image: ImageRef, at: ImageRef
    ) -> bool:
        """Return whether the lock before has other digests that are signed as they must be.

        They stay: somebody may have moved the tag to an image of his own.
        """
        for old in earlier:
            if old.image.repository != image.repository:
                continue
            if old.digest == image.digest:
                return False
            try:
                where = ImageRef(at.host, at.path, "", old.digest)
                self._check_signature(old.image, where, old.attached)
            except UserError:
                return False
        return True
