"""Tags to digests: references as found become a `Lock`.

Registries are asked at the place that `registries.sources` names. The lock names the image itself,
so a lock that is made behind a proxy is the same as one that is made without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from kfdeploy import parallel
from kfdeploy.cache import Cache
from kfdeploy.errors import UserError
from kfdeploy.images.lockfile import Lock, LockedImage
from kfdeploy.images.naming import PullSources
from kfdeploy.lock.attachments import AttachmentOutcome, AttachmentResolver
from kfdeploy.lock.inspect import DetailsReader, ImageDetails
from kfdeploy.lock.platforms import check_platforms
from kfdeploy.lock.result import LockFailure, LockNote, MovedTag, Resolution
from kfdeploy.oci.reference import ImageRef, WrittenRef
from kfdeploy.oci.registry.access import AccessResolver
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.oci.registry.manifest_cache import ManifestCache

if TYPE_CHECKING:
    from kfdeploy.workspace.settings import Environment, Images, Workspace

JOBS: Final = 8
_ELSEWHERE: Final = "run `kfdeploy lock` once where the sources can be reached"


@dataclass(frozen=True, slots=True)
class LockEvent:
    """Progress: a reference is locked or has failed.

    A reference whose attachments are asked for is reported again after that; ``total`` then counts
    it twice.
    """

    id: WrittenRef
    state: Literal["locked", "failed"]
    done: int
    total: int


def resolve_digests(
    ids: Iterable[WrittenRef],
    workspace: Workspace,
    *,
    root: Path,
    environment: Environment | None = None,
    previous: Lock | None = None,
    jobs: int = JOBS,
    offline: bool = False,
    refresh: bool = False,
    on_event: Callable[[LockEvent], None] | None = None,
    client: RegistryClient | None = None,
    cache: Cache | None = None,
) -> Resolution:
    """Lock references.

    A reference with a digest is not asked for its digest, only for size and platforms: where its
    registry can't be asked it is locked without them. With a tag, the tag is asked for again even
    when ``previous`` has it, as tags move.

    For each list of platforms that an environment names, the digest of the reduced index is locked
    too. An image that has none of them is a failure, and is locked for the other environments.

    Args:
        ids: references as found.
        root: the workspace's folder, which paths in kfdeploy.yaml are relative to.
        environment: whose private registry is meant, where a source is on the same host.
        offline: ask nobody; lock what is named by digest or is in ``previous``.
        refresh: ask for signatures and the like also where ``previous`` has the same digest.
        cache: keeps the manifests that are read, for `mirror` too.

    Returns:
        The lock of all that could be resolved, and what could not.

    Raises:
        UserError: `registries.sources` has a mistake, or a key of `images.signatures`.
    """
    sources = PullSources(workspace.registries.sources)
    if client is None:
        client = RegistryClient(
            AccessResolver(workspace.resolve_mirror_settings(environment), root)
        )
    attachments = AttachmentResolver(client, workspace, root, refresh=refresh)
    manifests = ManifestCache(client, cache or Cache(None))
    details = DetailsReader(client, manifests, tuple(workspace.platforms))
    before = dict(previous.by_id) if previous else {}
    requests = _group_requests(ids, workspace.images)
    record = _LockRecord(before, workspace.platforms, on_event)
    resolver = _ImageResolver(sources, details, attachments, before, offline)
    with client:
        record.expect(requests)
        unfinished: list[tuple[_LockRequest, _LockOutcome]] = []
        for request, outcome in parallel.run_in_threads(
            resolver.resolve_image, requests, jobs, client.close
        ):
            record.add(request, outcome)
            if outcome.lacks_attachments:
                unfinished.append((request, outcome))
        # Attachments come after all images, and what must be signed comes first: what can be done
        # without must not use up a registry's limit of requests.
        unfinished.sort(key=lambda item: not attachments.needs_signature(item[0].pin(item[1])))
        record.expect(request for request, _ in unfinished)
        for (request, outcome), found in parallel.run_in_threads(
            resolver.find_attachments, unfinished, jobs, client.close
        ):
            record.add(request, outcome.with_attachments(found))
    unmatched = attachments.list_unmatched_rules(request.image for request in requests)
    return record.build_resolution(tuple(unmatched))


# --- one image ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _LockRequest:
    """One image to ask for; several ids may want the same.

    Attributes:
        image: what is locked: the reference, or its substitute.
        is_substituted: the reference as found names another image.
    """

    image: ImageRef
    is_substituted: bool
    ids: tuple[WrittenRef, ...]

    def pin(self, outcome: _LockOutcome) -> ImageRef:
        """Return the image at the digest that was found."""
        return ImageRef(self.image.host, self.image.path, "", outcome.digest)

    def find_previous(self, before: Mapping[WrittenRef, LockedImage]) -> LockedImage | None:
        """Return what the lock before has for the same image."""
        for found in self.ids:
            image = before.get(found)
            if image is not None and image.image.repository == self.image.repository:
                return image
        return None


@dataclass(frozen=True, slots=True)
class _LockOutcome:
    """The digest of an image and what is behind it, or an error.

    Attributes:
        attachments: None where they have to be asked for yet.
    """

    digest: str = ""
    details: ImageDetails = field(default_factory=ImageDetails)
    error: UserError | None = None
    attachments: AttachmentOutcome | None = None

    @property
    def lacks_attachments(self) -> bool:
        return self.error is None and self.attachments is None

    def with_attachments(self, attachments: AttachmentOutcome | None) -> _LockOutcome:
        if self.error is not None or attachments is None:
            return self
        return replace(self, error=attachments.error, attachments=attachments)


def _group_requests(ids: Iterable[WrittenRef], settings: Images) -> list[_LockRequest]:
    """Return the distinct images to ask for, in the order of their ids."""
    groups: dict[tuple[ImageRef, bool], list[WrittenRef]] = {}
    for found in sorted(set(ids)):
        substitute = settings.find_substitute(found.parsed)
        image = (substitute or found).parsed.with_default_tag()
        groups.setdefault((image, substitute is not None), []).append(found)
    return [
        _LockRequest(image, is_substituted, tuple(found))
        for (image, is_substituted), found in groups.items()
    ]


@dataclass(frozen=True, slots=True)
class _ImageResolver:
    """Resolves one image at a time, in two steps; safe for threads."""

    sources: PullSources
    details: DetailsReader
    attachments: AttachmentResolver
    before: Mapping[WrittenRef, LockedImage]
    offline: bool

    def resolve_image(self, request: _LockRequest) -> _LockOutcome:
        """Return an image's digest and details, and its attachments if nobody has to be asked."""
        known = request.find_previous(self.before)
        if self.offline:
            outcome = self._resolve_offline(request, known)
            return outcome.with_attachments(
                self.attachments.resolve_offline(request.pin(outcome), known)
            )
        try:
            outcome = self._resolve_online(self.sources.resolve_ref(request.image), known)
        except UserError as error:
            return _LockOutcome(error=error)
        return outcome.with_attachments(self.attachments.get_known(request.pin(outcome), known))

    def find_attachments(self, item: tuple[_LockRequest, _LockOutcome]) -> AttachmentOutcome:
        """Ask for the attachments of an image whose digest is known."""
        request, outcome = item
        return self.attachments.resolve_online(
            request.pin(outcome),
            self.sources.resolve_ref(request.image),
            outcome.details.platforms.values(),
            known=request.find_previous(self.before),
            earlier=[self.before[found] for found in request.ids if found in self.before],
            unasked=outcome.details.missing,
        )

    def _resolve_offline(self, request: _LockRequest, known: LockedImage | None) -> _LockOutcome:
        digest = request.image.digest or (known.digest if known else "")
        if not digest:
            return _LockOutcome(
                error=UserError("not locked yet, and no registry may be asked", hint=_ELSEWHERE)
            )
        return _LockOutcome(digest, self.details.read_offline(digest, known))

    def _resolve_online(self, ref: ImageRef, known: LockedImage | None) -> _LockOutcome:
        if not ref.host:
            raise UserError("it names no registry that could be asked")
        digest: str | None = ref.digest
        try:
            # An image that is locked already is asked for too, to notice when it is gone.
            if not digest or self.details.knows_all(known, digest):
                digest = self.details.client.get_digest(ref)
            if digest is None:
                name = f"{ref.path}:{ref.tag}" if ref.tag else f"{ref.path}@{ref.digest}"
                raise RegistryError("gone", f"not found: {ref.host} has no {name}")
            pinned = replace(ref, digest=digest)
            return _LockOutcome(digest, self.details.read_details(pinned, known))
        except RegistryError as error:
            if not digest or not error.is_inconclusive:
                return _LockOutcome(error=error)
            details = self.details.get_known(known, digest)
            why = error.message
            return _LockOutcome(digest, replace(details, missing=why, unread=why))


# --- the record of a run --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _ReferenceRecord:
    """The result for one reference."""

    image: LockedImage | None
    failures: tuple[LockFailure, ...] = ()
    notes: tuple[LockNote, ...] = ()
    moved: MovedTag | None = None


class _LockRecord:
    """Collects the result for each reference, and reports progress."""

    def __init__(
        self,
        before: Mapping[WrittenRef, LockedImage],
        environments: Mapping[tuple[str, ...], tuple[str, ...]],
        on_event: Callable[[LockEvent], None] | None,
    ) -> None:
        self._before = before
        self._environments = environments
        self._on_event = on_event
        self._by_id: dict[WrittenRef, _ReferenceRecord] = {}
        self._total = 0
        self._done = 0

    def expect(self, requests: Iterable[_LockRequest]) -> None:
        """Count the references of requests that are to be answered."""
        self._total += sum(len(request.ids) for request in requests)

    def add(self, request: _LockRequest, outcome: _LockOutcome) -> None:
        """Take the outcome of a request for each of its references, in place of an earlier one."""
        for found in request.ids:
            self._by_id[found] = self._judge_outcome(found, request, outcome)
            self._done += 1
            if self._on_event is not None:
                state: Literal["locked", "failed"] = (
                    "failed" if self._by_id[found].failures else "locked"
                )
                self._on_event(LockEvent(found, state, self._done, self._total))

    def build_resolution(self, warnings: tuple[str, ...]) -> Resolution:
        records = self._by_id.values()
        failures = [failure for record in records for failure in record.failures]
        notes = [note for record in records for note in record.notes]
        return Resolution(
            lock=Lock([record.image for record in records if record.image]),
            failures=tuple(sorted(failures, key=lambda f: (f.id, f.reason))),
            moved=tuple(sorted((r.moved for r in records if r.moved), key=lambda m: m.id)),
            notes=tuple(sorted(notes, key=lambda n: (n.id, n.about, n.reason))),
            warnings=warnings,
        )

    def _judge_outcome(
        self, found: WrittenRef, request: _LockRequest, outcome: _LockOutcome
    ) -> _ReferenceRecord:
        attachments = outcome.attachments or AttachmentOutcome()
        if outcome.error is not None:
            failure = _build_failure(found, request, outcome.error, attachments)
            return _ReferenceRecord(None, (failure,))
        details = outcome.details
        image = LockedImage(
            id=found,
            image=request.pin(outcome),
            platforms=details.platforms,
            size=details.size,
            reduced=details.reduced,
            attached=attachments.attached,
        )
        findings = list(check_platforms(image, details.unread, self._environments))
        notes = [finding for finding in findings if isinstance(finding, LockNote)]
        if details.missing:
            notes.append(LockNote(found, details.missing))
        if attachments.note is not None:
            about, reason = attachments.note
            notes.append(LockNote(found, reason, about))
        return _ReferenceRecord(
            image,
            tuple(finding for finding in findings if isinstance(finding, LockFailure)),
            tuple(notes),
            self._find_move(image),
        )

    def _find_move(self, image: LockedImage) -> MovedTag | None:
        before = self._before.get(image.id)
        if before is None or before.digest == image.digest:
            return None
        return MovedTag(image.id, before.digest, image.digest)


def _build_failure(
    found: WrittenRef, request: _LockRequest, error: UserError, attachments: AttachmentOutcome
) -> LockFailure:
    reason = error.message
    if request.is_substituted:
        reason = f"its substitute {request.image}: {reason}"
    return LockFailure(found, reason, _mend_hint(found, request, error), attachments.is_refused)


def _mend_hint(found: WrittenRef, request: _LockRequest, error: UserError) -> str:
    hint = error.hint or ""
    if not isinstance(error, RegistryError) or error.kind not in {"gone", "denied", "content"}:
        return hint
    key = f"images.substitutes[{found.text!r}] in kfdeploy.yaml"
    advice = f"change {key}" if request.is_substituted else f"set {key} to an image to take"
    if error.kind == "gone":
        return f"gone from its source: {advice} instead"
    return f"{hint}; or {advice}".removeprefix("; or ")
