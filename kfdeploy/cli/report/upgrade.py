"""The report of an upgrade, as text and as Markdown for a merge request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from kfdeploy.oci.reference import ImageRef, WrittenRef
from kfdeploy.upgrade.components import ComponentChange
from kfdeploy.upgrade.patches import PatchCheck
from kfdeploy.upgrade.report import UpgradeReport
from kfdeploy.wording import format_bytes, pluralize

_Section = tuple[str, Sequence[str]]
_SHOWN = 5
"""The number of images named where many have the same reason."""
_STATES = {
    "holds": "holds",
    "look": "fits, but changes something else than before",
    "misfit": "no longer matches",
    "unused": "is no longer used",
}
_GENERATED = {
    "same": "edited by hand; the generated text is as before",
    "changed": "edited by hand; the generated text is different now",
    "gone": "edited by hand; it would no longer be generated",
}


def format_text(report: UpgradeReport, *, check: bool) -> Iterator[str]:
    """Yield the report for a terminal."""
    yield _format_title(report)
    if report.files.is_empty:
        yield "  nothing changes"
    for title, items in _build_sections(report, str):
        if items:
            yield f"{title}:"
            yield from (f"  {item}" for item in items)
    if not report.files.is_empty:
        yield f"files: {_format_file_counts(report)}{'; nothing is written' if check else ''}"
        if not check:
            yield f"next: {_suggest_next_step(report)}"


def format_markdown(report: UpgradeReport) -> Iterator[str]:
    """Yield the report for a merge request."""
    yield f"# {_format_title(report)}"
    yield ""
    yield f"Files: {_format_file_counts(report)}."
    for title, items in _build_sections(report, lambda text: f"`{text}`"):
        if items:
            yield ""
            yield f"## {title[0].upper()}{title[1:]}"
            yield ""
            for item in items:
                # Lines that belong to an item are indented.
                yield f"  - {item.strip()}" if item.startswith("  ") else f"- {item}"


def _format_title(report: UpgradeReport) -> str:
    before, now = report.before.version, report.now.version
    return f"{before} to {now}" if before != now else f"{now}, as before"


def _build_sections(report: UpgradeReport, code: Callable[[str], str]) -> Iterator[_Section]:
    yield "patches that must be adapted", list(_format_trials(report.conflicts, code))
    yield "components", list(_format_components(report, code))
    for title, state in (
        ("your patches that fit, but change something else than before", "look"),
        ("your patches that are no longer used", "unused"),
    ):
        yield title, list(_format_trials([t for t in report.own if t.state == state], code))
    holding = [trial.file for trial in report.own if trial.state == "holds"]
    yield "your patches that hold", [code(file) for file in holding]
    left = [trial for trial in report.edited if trial not in report.conflicts]
    yield "generated patches that you edited, and that hold", [code(t.file) for t in left]
    yield "generated patches", list(_format_generated(report))
    yield "images", list(_format_images(report, code))
    yield "bytes to transfer", list(_format_carry(report, code))
    yield "not locked", list(_format_lock_failures(report, code))
    yield (
        "programs that nobody has reviewed yet",
        [
            f"{code(program.image)} ({program.component}: {program.object});"
            f" to search: {code(program.scan_command)}"
            for program in report.unknown
        ],
    )
    yield (
        "images that their source no longer has",
        [
            f"{code(lost.ref.text)}: {lost.why}"
            + (
                f"; to use it, add to images.substitutes: {code(lost.substitute)}"
                if lost.substitute
                else ""
            )
            for lost in report.lost
        ],
    )
    yield (
        "settings that name no image",
        [
            f"{code(stale.key)}: "
            + ("no longer used" if stale.was_used else "was not used before either")
            + (
                f"; similar: {', '.join(code(ref.text) for ref in stale.near)}"
                if stale.near
                else ""
            )
            for stale in report.stale
        ],
    )
    yield "notes", [f"{where}: {what}" for what, where in report.problems]


def _format_components(report: UpgradeReport, code: Callable[[str], str]) -> Iterator[str]:
    same = sum(1 for change in report.components if change.state in ("same", "own"))
    yield f"{pluralize(same, 'component')} as before"
    left = {one.component: one for one in report.leftovers}
    for change in report.components:
        if text := _format_component(change, code):
            yield text
        if one := left.get(change.name):
            what = f"  in the cluster {pluralize(one.objects, 'object')} that nothing renders now"
            yield what + (f"; kept: {', '.join(one.kept)}" if one.kept else "")
            if one.elsewhere:
                yield f"  its other objects are now in {', '.join(one.elsewhere)}"
    if report.absent:
        yield f"left out, as before: {', '.join(report.absent)}"


def _format_component(change: ComponentChange, code: Callable[[str], str]) -> str:
    why = f": {change.why}" if change.why else ""
    if change.state == "moved":
        return f"moved: {change.name}: {code(change.before)} to {code(change.now)}{why}"
    if change.state == "new":
        return f"new: {change.name}: {code(change.now)}{why}"
    if change.state == "dropped":
        return f"dropped: {change.name}{why}"
    return f"kept: {change.name}{why}" if why else ""


def _format_trials(trials: Sequence[PatchCheck], code: Callable[[str], str]) -> Iterator[str]:
    for trial in trials:
        how = _GENERATED[trial.generated] if trial.generated else _STATES[trial.state]
        yield f"{code(trial.file)} {how}"
        for note in trial.notes:
            about = " ".join(part for part in (note.object, note.field) if part)
            says = note.what if not note.object or note.field in note.what else f"{about}: "
            text = note.what if says == note.what else f"{says}{note.what}"
            if note.object and says == note.what and note.object not in text:
                text = f"{note.object}: {text}"
            near = f"; similar: {', '.join(note.suggestions)}" if note.suggestions else ""
            yield f"  {text}{near}"


def _format_generated(report: UpgradeReport) -> Iterator[str]:
    made = report.generated
    yield (
        f"{len(made.same)} the same, {len(made.changed)} changed, {len(made.new)} new,"
        f" {len(made.gone)} gone"
    )


def _format_images(report: UpgradeReport, code: Callable[[str], str]) -> Iterator[str]:
    images = report.images
    yield f"{images.same} the same, {len(images.new)} new, {len(images.dropped)} dropped"
    retagged: set[WrittenRef] = set()
    for repository in images.retagged:
        now = ", ".join(code(ref.text) for ref in repository.now)
        before = ", ".join(code(_format_tag_and_digest(ref.parsed)) for ref in repository.before)
        yield f"{now}, was {before}"
        retagged |= {*repository.before, *repository.now}
    for what, found in (("new", images.new), ("dropped", images.dropped)):
        for image in found:
            if image.ref not in retagged:
                mark = "" if image.covered else f" ({image.why_not})"
                yield f"{what}: {code(image.ref.text)}{mark}"


def _format_tag_and_digest(ref: ImageRef) -> str:
    """Return the part of a reference behind its repository."""
    digest = f"@{ref.digest}" if ref.digest else ""
    return f":{ref.tag}{digest}" if ref.tag else digest or "without a tag"


def _format_carry(report: UpgradeReport, code: Callable[[str], str]) -> Iterator[str]:
    if report.transfer is None:
        return
    carry = report.transfer
    most = "at most " if carry.at_most else ""
    sized = carry.images - len(carry.unsized)
    if sized or not carry.unsized:
        of = pluralize(sized, "image")
        yield f"{most}{format_bytes(carry.size)} ({carry.size} bytes) of {of}"
    if carry.unsized:
        names = ", ".join(code(ref.text) for ref in carry.unsized)
        yield f"size not known: {pluralize(len(carry.unsized), 'image')}: {names}"
    if carry.unlocked:
        yield f"not locked, so not counted: {pluralize(len(carry.unlocked), 'image')}"


def _format_lock_failures(report: UpgradeReport, code: Callable[[str], str]) -> Iterator[str]:
    if report.lock is None:
        yield "the workspace has no images.lock: run `kfdeploy lock`"
        return
    reasons: dict[str, list[str]] = {}
    for failure in report.lock.failures:
        reasons.setdefault(failure.reason, []).append(failure.id.text)
    for reason, refs in reasons.items():
        shown = ", ".join(map(code, refs[:_SHOWN]))
        more = f" and {len(refs) - _SHOWN} more" if len(refs) > _SHOWN else ""
        yield f"{shown}{more}: {reason}"


def _format_file_counts(report: UpgradeReport) -> str:
    files = report.files
    counts = (len(files.new), len(files.changed), len(files.removed))
    own = f"{counts[0]} new, {counts[1]} changed, {counts[2]} removed"
    below = files.upstream
    return (
        f"{own}; in upstream/ {below['added']} new, {below['changed']} changed,"
        f" {below['removed']} removed"
    )


def _suggest_next_step(report: UpgradeReport) -> str:
    if report.conflicts:
        return "adapt the patches that no longer match, then run kfdeploy render"
    if report.lock is None or report.lock.failures:
        return "run kfdeploy lock where the sources can be reached, then mirror and render"
    return "look at git diff, then run kfdeploy mirror and kfdeploy render"
