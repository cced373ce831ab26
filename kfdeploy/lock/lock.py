"""Tags to digests: references as found become a `Lock`.

Registries are asked at the place that `registries.sources` names; what is locked is the image
itself, so that a lock made behind a proxy is the lock made without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from kfdeploy import parallel
from kfdeploy.cache import Cache
from kfdeploy.errors import UserError
from kfdeploy.images.lockfile import Lock, LockedImage, tag_of
from kfdeploy.images.naming import PullSources
from kfdeploy.lock.attachments import AttachmentOutcome, AttachmentResolver
from kfdeploy.lock.inspect import DetailsReader, ImageDetails
from kfdeploy.oci.manifest import matches_platform
from kfdeploy.oci.reference import ImageRef, InvalidImageRef
from kfdeploy.oci.registry.access import AccessResolver
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.oci.registry.manifest_cache import ManifestCache

if TYPE_CHECKING:
    from kfdeploy.workspace.settings import Environment, Workspace

JOBS: Final = 8
_ELSEWHERE: Final = "run `kfdeploy lock` once where the sources can be reached"
_AGAIN: Final = "run `kfdeploy lock` again where its source can be reached"


@dataclass(frozen=True, slots=True)
class LockFailure:
    """An image that could not be locked; or it could, but not for all environments' platforms.

    Attributes:
        refused: what there is of it must not be used, whatever an earlier lock has.
    """

    id: str
    reason: str
    hint: str
    is_refused: bool = False

    def to_json(self) -> dict[str, str]:
        return {"ref": self.id, "reason": self.reason, "hint": self.hint}


@dataclass(frozen=True, slots=True)
class MovedTag:
    """A tag that names another image than in the lock before."""

    id: str
    before: str
    now: str

    def to_json(self) -> dict[str, str]:
        return {"ref": self.id, "before": self.before, "now": self.now}


@dataclass(frozen=True, slots=True)
class LockNote:
    """Locked, but not all about it is known, or it has not all platforms that are wanted."""

    id: str
    reason: str
    about: Literal["size", "platforms", "attached", "signature"] = "size"

    def to_json(self) -> dict[str, str]:
        return {"ref": self.id, "about": self.about, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Resolution:
    """What locking came to; each part sorted by id."""

    lock: Lock
    failures: tuple[LockFailure, ...] = ()
    moved: tuple[MovedTag, ...] = ()
    notes: tuple[LockNote, ...] = ()
    warnings: tuple[str, ...] = ()

    def list_errors(self) -> list[UserError]:
        """The failures as errors, one each."""
        return [UserError(f"{f.id}: {f.reason}", hint=f.hint) for f in self.failures]

    def to_json(self) -> dict[str, Any]:
        return {
            "locked": len(self.lock),
            "failures": self.failures,
            "moved": self.moved,
            "notes": self.notes,
            "warnings": self.warnings,
        }


@dataclass(frozen=True, slots=True)
class LockEvent:
    """Progress: one image is done, or later what belongs to it, which ``total`` then counts too."""

    id: str
    state: Literal["locked", "failed"]
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class _LockRequest:
    """One image to ask for; several ids may want the same.

    Attributes:
        image: what is locked: the reference, or its substitute.
        substituted: the reference as found names another image.
    """

    image: ImageRef
    is_substituted: bool
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _LockOutcome:
    digest: str = ""
    details: ImageDetails = field(default_factory=ImageDetails)
    error: RegistryError | UserError | None = None
    belonging: AttachmentOutcome | None = None

    def with_attachments(self, belonging: AttachmentOutcome | None) -> _LockOutcome:
        """With what belongs to the image; None where it is to be asked for yet."""
        if self.error is not None or belonging is None:
            return self
        return replace(self, error=belonging.error, belonging=belonging)


@dataclass(frozen=True, slots=True)
class _LockedReference:
    """What came of one reference."""

    image: LockedImage | None
    failures: list[LockFailure]
    moved: list[MovedTag] = field(default_factory=list)
    notes: list[LockNote] = field(default_factory=list)


def resolve(
    ids: Iterable[str],
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
    wanted, failures = _group_requests(ids, workspace.images.substitutes)
    total = sum(len(want.ids) for want in wanted) + len(failures)
    done = 0
    if client is None:
        client = RegistryClient(
            AccessResolver(workspace.resolve_mirror_settings(environment), root)
        )
    before = {} if previous is None else dict(previous.by_id)
    environments = workspace.platforms
    reader = DetailsReader(client, ManifestCache(client, cache or Cache(None)), tuple(environments))
    belongings = AttachmentResolver(client, workspace, root, refresh=refresh)
    settled: dict[str, _LockedReference] = {}

    def resolve_image(want: _LockRequest) -> _LockOutcome:
        known = _find_previous(want, before)
        if offline:
            outcome = _resolve_offline(reader, want, known)
            return outcome.with_attachments(
                belongings.resolve_offline(_pinned_reference(want, outcome), known)
            )
        try:
            outcome = _resolve_online(reader, sources.resolve_ref(want.image), known)
        except UserError as error:
            return _LockOutcome(error=error)
        return outcome.with_attachments(
            belongings.get_known(_pinned_reference(want, outcome), known)
        )

    def find_attachments(item: tuple[_LockRequest, _LockOutcome]) -> AttachmentOutcome:
        want, outcome = item
        return belongings.resolve_online(
            _pinned_reference(want, outcome),
            sources.resolve_ref(want.image),
            outcome.details.platforms.values(),
            known=_find_previous(want, before),
            earlier=[before[found] for found in want.ids if found in before],
            unasked=outcome.details.missing,
        )

    def record_outcome(want: _LockRequest, outcome: _LockOutcome) -> None:
        nonlocal done
        for found in want.ids:
            settled[found] = one = _lock_reference(
                found, want, outcome, before.get(found), environments
            )
            done += 1
            if on_event is not None:
                on_event(LockEvent(found, "failed" if one.failures else "locked", done, total))

    with client:
        waiting: list[tuple[_LockRequest, _LockOutcome]] = []
        for want, outcome in parallel.run_in_threads(resolve_image, wanted, jobs, client.close):
            record_outcome(want, outcome)
            if outcome.error is None and outcome.belonging is None:
                waiting.append((want, outcome))
        # All images come first, then what must be signed: a registry's limit is not to be used up
        # by what can be done without.
        waiting.sort(key=lambda item: not belongings.needs_signature(_pinned_reference(*item)))
        total += sum(len(want.ids) for want, _ in waiting)
        for (want, outcome), belonging in parallel.run_in_threads(
            find_attachments, waiting, jobs, client.close
        ):
            record_outcome(want, outcome.with_attachments(belonging))
    each = settled.values()
    failures += [failure for one in each for failure in one.failures]
    notes = [note for one in each for note in one.notes]
    return Resolution(
        lock=Lock([one.image for one in each if one.image is not None]),
        failures=tuple(sorted(failures, key=lambda f: (f.id, f.reason))),
        moved=tuple(sorted((m for one in each for m in one.moved), key=lambda m: m.id)),
        notes=tuple(sorted(notes, key=lambda n: (n.id, n.about, n.reason))),
        warnings=tuple(belongings.list_unmatched_rules(want.image for want in wanted)),
    )


def _lock_reference(
    found: str,
    want: _LockRequest,
    outcome: _LockOutcome,
    before: LockedImage | None,
    environments: Mapping[tuple[str, ...], Sequence[str]],
) -> _LockedReference:
    belonging = outcome.belonging or AttachmentOutcome()
    if outcome.error is not None:
        return _LockedReference(None, [_build_failure(found, want, outcome.error, belonging)])
    image = _build_locked_image(found, want, outcome, belonging)
    failures, notes = _check_platforms(image, outcome.details.unread, environments)
    if outcome.details.missing:
        notes.append(LockNote(found, outcome.details.missing))
    if belonging.note is not None:
        about, reason = belonging.note
        notes.append(LockNote(found, reason, about))
    is_moved = before is not None and before.digest != image.digest
    moved = (
        [MovedTag(found, before.digest, image.digest)] if before is not None and is_moved else []
    )
    return _LockedReference(image, failures, moved, notes)


def _group_requests(
    ids: Iterable[str], substitutes: Mapping[str, str]
) -> tuple[list[_LockRequest], list[LockFailure]]:
    """The distinct images to ask for, in order; failures are ids that are no references."""
    instead = {
        ImageRef.parse(old).with_default_tag(): ImageRef.parse(new).with_default_tag()
        for old, new in substitutes.items()
    }
    groups: dict[tuple[ImageRef, bool], list[str]] = {}
    failures: list[LockFailure] = []
    for found in sorted(set(ids)):
        try:
            ref = ImageRef.parse(found).with_default_tag()
        except InvalidImageRef as error:
            failures.append(LockFailure(found, str(error), "`kfdeploy why` says where it is found"))
            continue
        groups.setdefault((instead.get(ref, ref), ref in instead), []).append(found)
    wanted = [_LockRequest(image, other, tuple(found)) for (image, other), found in groups.items()]
    return wanted, failures


def _find_previous(want: _LockRequest, before: Mapping[str, LockedImage]) -> LockedImage | None:
    """What the lock before has for the same image."""
    for found in want.ids:
        image = before.get(found)
        if image is not None and image.image.repository == want.image.repository:
            return image
    return None


def _pinned_reference(want: _LockRequest, outcome: _LockOutcome) -> ImageRef:
    return ImageRef(want.image.host, want.image.path, "", outcome.digest)


def _resolve_offline(
    reader: DetailsReader, want: _LockRequest, known: LockedImage | None
) -> _LockOutcome:
    digest = want.image.digest or (known.digest if known else "")
    if not digest:
        return _LockOutcome(
            error=UserError("not locked yet, and no registry may be asked", hint=_ELSEWHERE)
        )
    return _LockOutcome(digest, reader.read_offline(digest, known))


def _resolve_online(
    reader: DetailsReader, ref: ImageRef, known: LockedImage | None
) -> _LockOutcome:
    if not ref.host:
        raise UserError("it names no registry that could be asked")
    digest: str | None = ref.digest
    try:
        # What is locked already is asked for all the same, so that what is gone is noticed.
        if not digest or reader.knows_all(known, digest):
            digest = reader.client.get_digest(ref)
        if digest is None:
            gone = f"not found: {ref.host} has no {_short_name(ref)}"
            return _LockOutcome(error=RegistryError("gone", gone))
        return _LockOutcome(digest, reader.read_details(replace(ref, digest=digest), known))
    except RegistryError as error:
        if not digest or not error.is_inconclusive:
            return _LockOutcome(error=error)
        details = reader.get_known(known, digest)
        return _LockOutcome(digest, replace(details, missing=error.message, unread=error.message))


def _check_platforms(
    image: LockedImage, unread: str, environments: Mapping[tuple[str, ...], Sequence[str]]
) -> tuple[list[LockFailure], list[LockNote]]:
    """What environments want of an image, and it does not have.

    Args:
        unread: why its index could not be read.
        environments: list of platforms to the environments that name it.
    """
    has = sorted(image.platforms)
    failures: list[LockFailure] = []
    notes: list[LockNote] = []
    for wanted, names in environments.items():
        who = f"the environment{'s' if len(names) > 1 else ''} {' and '.join(names)}"
        wants = f"{who} {'want' if len(names) > 1 else 'wants'} {', '.join(wanted)}"
        lacking = [p for p in wanted if not any(matches_platform(name, (p,)) for name in has)]
        if image.digest_for(wanted):
            if not has:
                notes.append(
                    LockNote(image.id, f"{wants}, and nothing says what it has", "platforms")
                )
            elif lacking:
                lacks = f"{wants}, and it has no {', '.join(lacking)}, but {', '.join(has)}"
                notes.append(LockNote(image.id, lacks, "platforms"))
        elif unread and (not has or lacking != list(wanted)):
            failures.append(
                LockFailure(image.id, f"{wants}; its index can't be had: {unread}", _AGAIN)
            )
        else:
            told = ", ".join(has) or "none that its index names"
            if lacking != list(wanted):
                told += ", in an index within its index"
            keys = " and ".join(f"environments.{name}.platforms" for name in names)
            hint = (
                f"name another image in images.substitutes[{image.id!r}] of kfdeploy.yaml, leave it"
                f" out by images.exclude, or change {keys}"
            )
            failures.append(LockFailure(image.id, f"{wants}, and the image has {told}", hint))
    return failures, notes


def _build_locked_image(
    found: str, want: _LockRequest, outcome: _LockOutcome, belonging: AttachmentOutcome
) -> LockedImage:
    return LockedImage(
        id=found,
        image=_pinned_reference(want, outcome),
        tag=tag_of(ImageRef.parse(found)),
        platforms=outcome.details.platforms,
        size=outcome.details.size,
        reduced=outcome.details.reduced,
        attached=belonging.attached,
    )


def _build_failure(
    found: str, want: _LockRequest, error: UserError, belonging: AttachmentOutcome
) -> LockFailure:
    reason = error.message
    if want.is_substituted:
        reason = f"its substitute {want.image}: {reason}"
    hint = error.hint or ""
    if isinstance(error, RegistryError) and error.kind in {"gone", "denied", "content"}:
        substitute = f"set images.substitutes[{found!r}] in kfdeploy.yaml to an image to take"
        if want.is_substituted:
            substitute = f"change images.substitutes[{found!r}] in kfdeploy.yaml"
        if error.kind == "gone":
            hint = f"gone from its source: {substitute} instead"
        else:
            hint = f"{hint}; or {substitute}".removeprefix("; or ")
    return LockFailure(found, reason, hint, belonging.is_refused)


def _short_name(ref: ImageRef) -> str:
    return f"{ref.path}:{ref.tag}" if ref.tag else f"{ref.path}@{ref.digest}"
