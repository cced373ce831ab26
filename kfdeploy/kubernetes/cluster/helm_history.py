"""Read and mend Helm's records in a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from kfdeploy.errors import UserError
from kfdeploy.kubernetes import helm_release
from kfdeploy.kubernetes.accessors import get_labels, get_name, get_text
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.cluster.errors import ApiError
from kfdeploy.kubernetes.helm_release import HelmRevision
from kfdeploy.kubernetes.objects import Object, ObjectKey


@dataclass(frozen=True)
class ReleaseHistory:
    """The revisions that count of one release.

    Attributes:
        newest: the last revision.
        deployed: the last revision that was deployed, which may be ``newest``; None if none was.
        unsuccessful: the revisions after ``deployed``, newest first.
    """

    newest: HelmRevision
    deployed: HelmRevision | None
    unsuccessful: tuple[HelmRevision, ...]

    @property
    def objects(self) -> list[Object]:
        """The objects that may exist: of all revisions since the last that was deployed."""
        revisions = (*self.unsuccessful, self.deployed) if self.deployed else self.unsuccessful
        return list({item.key: item for one in revisions for item in one.objects}.values())


def read_histories(
    cluster: Cluster, namespace: str, names: Iterable[str] | None = None
) -> dict[str, ReleaseHistory]:
    """Return the history of each release that has records in a namespace.

    Args:
        names: of these releases only.

    Raises:
        UserError: a record is damaged.
    """
    wanted = None if names is None else set(names)
    histories = {}
    for name, entries in sorted(_list_revisions(cluster, namespace).items()):
        if wanted is None or name in wanted:
            histories[name] = _read_history(cluster, namespace, entries)
    return {name: history for name, history in histories.items() if history is not None}


class _RevisionEntry(NamedTuple):
    """What the labels of a record's Secret say; they are cheaper to read than the record."""

    revision: int
    status: str
    secret: str


def _list_revisions(cluster: Cluster, namespace: str) -> dict[str, list[_RevisionEntry]]:
    """Return the revisions of each release in a namespace."""
    out: dict[str, list[_RevisionEntry]] = {}
    selector = helm_release.SELECTOR
    for secret in cluster.list("v1", "Secret", namespace=namespace, labels=selector, metadata=True):
        labels = get_labels(secret)
        version = get_text(labels, "version")
        if version.isdigit():
            entry = _RevisionEntry(int(version), get_text(labels, "status"), get_name(secret))
            out.setdefault(get_text(labels, "name"), []).append(entry)
    return out


def _read_history(
    cluster: Cluster, namespace: str, entries: Iterable[_RevisionEntry]
) -> ReleaseHistory | None:
    """Read the records from the newest back to the last that was deployed."""
    revisions = []
    for entry in sorted(entries, reverse=True):
        if (revision := _read_revision(cluster, namespace, entry.secret)) is not None:
            revisions.append(revision)
        if entry.status == "deployed":
            break
    if not revisions:
        return None
    last = revisions[-1]
    if last.status != "deployed":
        return ReleaseHistory(revisions[0], None, tuple(revisions))
    return ReleaseHistory(revisions[0], last, tuple(revisions[:-1]))


def _read_revision(cluster: Cluster, namespace: str, name: str) -> HelmRevision | None:
    secret = cluster.get(ObjectKey("v1", "Secret", namespace, name))
    if secret is None:  # Helm keeps ten revisions, and may just have deleted this one
        return None
    try:
        return helm_release.parse_revision(secret)
    except (ValueError, KeyError, TypeError, OSError, EOFError) as error:
        raise UserError(
            f"Secret {namespace}/{name}: damaged, Helm could not read it either: {error}",
            hint=f"`kubectl delete secret {name} -n {namespace}` makes Helm forget this revision;"
            " the objects stay, and the next apply takes them over",
        ) from error


def fail_pending_revision(cluster: Cluster, namespace: str, record: HelmRevision) -> None:
    """Mark a revision that was never finished as failed: Helm refuses to go on while it is pending.

    It is not deleted, as only the record says which objects the revision has created.
    """
    key = ObjectKey("v1", "Secret", namespace, record.secret)
    while (secret := cluster.get(key)) is not None:
        if not helm_release.parse_revision(secret).is_pending:
            return
        try:
            cluster.replace(helm_release.mark_failed(secret))
        except ApiError as error:
            if error.status not in (404, 409):  # it has changed meanwhile: look again
                raise
