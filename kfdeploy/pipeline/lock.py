"""Tags to digests: references as found become a `Lock`.

Registries are asked at the place that `registries.sources` names; what is locked is the image
itself, so that a lock made behind a proxy is the lock made without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from kfdeploy.errors import UserError
from kfdeploy.model.environment import Sources
from kfdeploy.model.image import ImageRef, InvalidImageRef
from kfdeploy.model.lockfile import Lock, LockedImage, tag_of
from kfdeploy.pipeline.lock_attached import Belonging, Belongings
from kfdeploy.tools import pool
from kfdeploy.tools.reach import Reaches
from kfdeploy.tools.registry import Client
from kfdeploy.tools.registry_errors import RegistryError

if TYPE_CHECKING:
    from kfdeploy.model.workspace import Environment, Workspace

JOBS: Final = 8
_DETAIL_PATIENCE: Final = 3.0
"""Seconds to wait for a busy registry when only size and platforms are missing."""
_NESTED_MAX: Final = 4
_CONFIG_TYPES: Final = frozenset(
    {
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    }
)


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that could not be locked.

    Attributes:
        refused: what there is of it must not be used, whatever an earlier lock has.
    """

    id: str
    reason: str
    hint: str
    refused: bool = False

    def to_json(self) -> dict[str, str]:
        return {"ref": self.id, "reason": self.reason, "hint": self.hint}


@dataclass(frozen=True, slots=True)
class Moved:
    """A tag that names another image than in the lock before."""

    id: str
    before: str
    now: str

    def to_json(self) -> dict[str, str]:
        return {"ref": self.id, "before": self.before, "now": self.now}


@dataclass(frozen=True, slots=True)
class Note:
    """Locked, but not all about it could be had: ``what`` is missing."""

    id: str
    reason: str
    what: str = "no size known"

    def to_json(self) -> dict[str, str]:
        return {"ref": self.id, "what": self.what, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Resolution:
    """What locking came to; each part sorted by id."""

    lock: Lock
    failures: tuple[Failure, ...] = ()
    moved: tuple[Moved, ...] = ()
    notes: tuple[Note, ...] = ()
    warnings: tuple[str, ...] = ()

    def errors(self) -> list[UserError]:
        """The failures as errors, one each."""
        return [UserError(f"{f.id}: {f.reason}", hint=f.hint) for f in self.failures]

    def to_json(self) -> dict[str, Any]:
        return {
            "locked": len(self.lock),
            "failures": [f.to_json() for f in self.failures],
            "moved": [m.to_json() for m in self.moved],
            "notes": [n.to_json() for n in self.notes],
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True)
class LockEvent:
    """Progress: one image is done."""

    id: str
    state: Literal["locked", "failed"]
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class _Details:
    platforms: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One image to ask for; several ids may want the same.

    Attributes:
        image: what is locked: the reference, or its substitute.
        substituted: the reference as found names another image.
    """

    image: ImageRef
    substituted: bool
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Outcome:
    digest: str = ""
    details: _Details = field(default_factory=_Details)
    error: RegistryError | UserError | None = None
    belonging: Belonging = field(default_factory=Belonging)


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
    client: Client | None = None,
) -> Resolution:
    """Lock references.

    A reference with a digest is not asked for its digest, only for size and platforms: where its
    registry can't be asked it is locked without them. With a tag, the tag is asked for again even
    when ``previous`` has it, as tags move.

    Args:
        ids: references as found.
        root: the workspace's folder, which paths in kfdeploy.yaml are relative to.
        environment: whose private registry is meant, where a source is on the same host.
        offline: ask nobody; lock what is named by digest or is in ``previous``.
        refresh: ask for signatures and the like also where ``previous`` has the same digest.

    Returns:
        The lock of all that could be resolved, and what could not.

    Raises:
        UserError: `registries.sources` has a mistake, or a key of `images.signatures`.
    """
    sources = Sources(workspace.registries.sources)
    wanted, failures = _wanted(ids, workspace.images.substitutes)
    total = sum(len(want.ids) for want in wanted) + len(failures)
    done = 0
    if client is None:
        private = workspace.registries.private
        if environment is not None:
            private = workspace.registry(environment)
        client = Client(Reaches(workspace.registries, private, root))
    before = {} if previous is None else dict(previous.by_id)
    images: list[LockedImage] = []
    moved: list[Moved] = []
    notes: list[Note] = []

    belongings = Belongings(client, workspace, root, refresh=refresh)

    def work(want: _Wanted) -> _Outcome:
        known = _known(want, before)
        if offline:
            outcome = _offline(want, known)
            belonging = belongings.offline(_at(want, outcome), known)
        else:
            try:
                at = sources.locate(want.image)
                outcome = _ask(client, at, known)
            except UserError as error:
                return _Outcome(error=error)
            if outcome.error is not None:
                return outcome
            belonging = belongings.of(
                _at(want, outcome),
                at,
                outcome.details.platforms.values(),
                known=known,
                earlier=[before[found] for found in want.ids if found in before],
                unasked=outcome.details.missing,
            )
        return replace(outcome, error=outcome.error or belonging.error, belonging=belonging)

    with client:
        for want, outcome in pool.each(work, wanted, jobs, client.close):
            for found in want.ids:
                if outcome.error is not None:
                    failures.append(_failure(found, want, outcome.error, outcome.belonging))
                else:
                    image = _locked(found, want, outcome)
                    images.append(image)
                    old = before.get(found)
                    if old is not None and old.digest != image.digest:
                        moved.append(Moved(found, old.digest, image.digest))
                    if outcome.details.missing:
                        notes.append(Note(found, outcome.details.missing))
                    if outcome.belonging.note is not None:
                        what, reason = outcome.belonging.note
                        notes.append(Note(found, reason, what))
                done += 1
                if on_event is not None:
                    state: Literal["locked", "failed"] = "failed" if outcome.error else "locked"
                    on_event(LockEvent(found, state, done, total))
    return Resolution(
        lock=Lock(images),
        failures=tuple(sorted(failures, key=lambda f: f.id)),
        moved=tuple(sorted(moved, key=lambda m: m.id)),
        notes=tuple(sorted(notes, key=lambda n: (n.id, n.what))),
        warnings=tuple(belongings.unmatched(want.image for want in wanted)),
    )


def _wanted(
    ids: Iterable[str], substitutes: Mapping[str, str]
) -> tuple[list[_Wanted], list[Failure]]:
    """The distinct images to ask for, in order; failures are ids that are no references."""
    instead = {
        ImageRef.parse(old).with_default_tag(): ImageRef.parse(new).with_default_tag()
        for old, new in substitutes.items()
    }
    groups: dict[tuple[ImageRef, bool], list[str]] = {}
    failures: list[Failure] = []
    for found in sorted(set(ids)):
        try:
            ref = ImageRef.parse(found).with_default_tag()
        except InvalidImageRef as error:
            failures.append(Failure(found, str(error), "`kfdeploy why` says where it is found"))
            continue
        groups.setdefault((instead.get(ref, ref), ref in instead), []).append(found)
    wanted = [_Wanted(image, other, tuple(found)) for (image, other), found in groups.items()]
    return wanted, failures


def _known(want: _Wanted, before: Mapping[str, LockedImage]) -> LockedImage | None:
    """What the lock before has for the same image."""
    for found in want.ids:
        image = before.get(found)
        if image is not None and image.image.repository == want.image.repository:
            return image
    return None


def _at(want: _Wanted, outcome: _Outcome) -> ImageRef:
    return ImageRef(want.image.host, want.image.path, "", outcome.digest)


def _offline(want: _Wanted, known: LockedImage | None) -> _Outcome:
    digest = want.image.digest or (known.digest if known else "")
    if not digest:
        return _Outcome(
            error=UserError(
                "not locked yet, and no registry may be asked",
                hint="run `kfdeploy lock` once where the sources can be reached",
            )
        )
    if known is not None and known.digest == digest:
        return _Outcome(digest, _Details(known.platforms, known.size))
    return _Outcome(digest)


def _ask(client: Client, ref: ImageRef, known: LockedImage | None) -> _Outcome:
    if not ref.host:
        raise UserError("it names no registry that could be asked")
    try:
        if ref.digest and (known is None or known.digest != ref.digest or known.size is None):
            return _Outcome(ref.digest, _details(client, ref))
        digest = client.digest(ref)
    except RegistryError as error:
        if not ref.digest or not error.unasked:
            return _Outcome(error=error)
        details = _Details(known.platforms, known.size) if known else _Details()
        return _Outcome(ref.digest, replace(details, missing=error.message))
    if digest is None:
        return _Outcome(error=RegistryError("gone", f"not there: {ref.host} has no {_short(ref)}"))
    if known is not None and known.digest == digest and known.size is not None:
        return _Outcome(digest, _Details(known.platforms, known.size))
    try:
        return _Outcome(digest, _details(client, ImageRef(ref.host, ref.path, "", digest)))
    except RegistryError as error:
        if not error.unasked:
            return _Outcome(error=error)
        return _Outcome(digest, _Details(missing=error.message))


def _details(client: Client, ref: ImageRef) -> _Details:
    """Platforms and size of an index or manifest.

    Raises:
        RegistryError: kind ``gone`` or ``content`` when the image, or a part of its index, is not
            there; other kinds only when not even the platforms can be had.
    """
    top = client.manifest(ref, patience=_DETAIL_PATIENCE)
    platforms: dict[str, str] = {}
    blobs: dict[str, int] = {}
    missing = ""
    # (digest, content if it was had already, depth)
    waiting: list[tuple[str, Mapping[str, Any] | None, int]] = [(ref.digest, top.content, 0)]
    while waiting:
        digest, content, depth = waiting.pop(0)
        if content is None:
            try:
                at = ImageRef(ref.host, ref.path, "", digest)
                content = client.manifest(at, patience=_DETAIL_PATIENCE).content
            except RegistryError as error:
                if not error.unasked:
                    raise
                missing = missing or error.message
                continue
        for child in _list(content, "manifests"):
            name = _platform(child.get("platform") or {})
            if name:
                platforms.setdefault(name, str(child.get("digest", "")))
            if depth < _NESTED_MAX:
                waiting.append((str(child.get("digest", "")), None, depth + 1))
        config = content.get("config")
        for blob in (*_list(content, "layers"), *([config] if isinstance(config, dict) else [])):
            # A layer with URLs is fetched from there and in no registry.
            if not blob.get("urls"):
                blobs[str(blob.get("digest", ""))] = int(blob.get("size") or 0)
        if depth == 0 and isinstance(config, dict) and config.get("mediaType") in _CONFIG_TYPES:
            name, problem = _config_platform(client, ref, str(config.get("digest", "")))
            missing = missing or problem
            if name:
                platforms[name] = digest
    return _Details(platforms, None if missing else sum(blobs.values()), missing)


def _config_platform(client: Client, ref: ImageRef, digest: str) -> tuple[str, str]:
    """The platform of a single image, and why it can't be had otherwise."""
    import json

    try:
        config = json.loads(client.blob(ref, digest, patience=_DETAIL_PATIENCE))
    except RegistryError as error:
        if not error.unasked:
            raise
        return "", error.message
    except ValueError:
        return "", f"{ref}: its config is no JSON"
    return _platform(config if isinstance(config, dict) else {}), ""


def _platform(platform: Mapping[str, Any]) -> str:
    """``os/arch[/variant]``; empty for BuildKit's attestations, which are for no platform.

    Windows images differ by the system's version too, which is written as containerd does.
    """
    system, architecture = platform.get("os"), platform.get("architecture")
    if not system or not architecture or "unknown" in {system, architecture}:
        return ""
    version = platform.get("os.version")
    if system == "windows" and version:
        system = f"windows({version})"
    return "/".join(str(p) for p in (system, architecture, platform.get("variant")) if p)


def _list(content: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = content.get(key)
    return [e for e in value if isinstance(e, dict)] if isinstance(value, list) else []


def _locked(found: str, want: _Wanted, outcome: _Outcome) -> LockedImage:
    return LockedImage(
        id=found,
        image=_at(want, outcome),
        tag=tag_of(ImageRef.parse(found)),
        platforms=outcome.details.platforms,
        size=outcome.details.size,
        attached=outcome.belonging.attached,
    )


def _failure(found: str, want: _Wanted, error: UserError, belonging: Belonging) -> Failure:
    reason = error.message
    if want.substituted:
        reason = f"its substitute {want.image}: {reason}"
    hint = error.hint or ""
    if isinstance(error, RegistryError) and error.kind in {"gone", "denied", "content"}:
        substitute = f"set images.substitutes[{found!r}] in kfdeploy.yaml to an image to take"
        if want.substituted:
            substitute = f"change images.substitutes[{found!r}] in kfdeploy.yaml"
        if error.kind == "gone":
            hint = f"gone from its source: {substitute} instead"
        else:
            hint = f"{hint}; or {substitute}".removeprefix("; or ")
    return Failure(found, reason, hint, belonging.refused)


def _short(ref: ImageRef) -> str:
    return f"{ref.path}:{ref.tag}" if ref.tag else f"{ref.path}@{ref.digest}"
