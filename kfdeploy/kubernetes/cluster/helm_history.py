"""Helm's records in a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kfdeploy.errors import UserError
from kfdeploy.kubernetes import helm_release
from kfdeploy.kubernetes.cluster.client import Cluster
from kfdeploy.kubernetes.cluster.errors import ApiError
from kfdeploy.kubernetes.helm_release import HelmRevision
from kfdeploy.kubernetes.objects import Object, ObjectKey


@dataclass(frozen=True)
class ReleaseHistory:
    """What Helm knows of one release.

    Attributes:
        newest: its last revision.
        deployed: the last one that was deployed, which may be the same; None when none ever was.
        between: revisions after it that came to nothing.
    """

    newest: HelmRevision
    deployed: HelmRevision | None
    unsuccessful: tuple[HelmRevision, ...]

    @property
    def objects(self) -> list[Object]:
        """What may be there of it: of all revisions since the last that was deployed."""
        records = (*self.unsuccessful, self.deployed) if self.deployed else self.unsuccessful
        return list({item.key: item for record in records for item in record.objects}.values())


def read_histories(
    cluster: Cluster, namespace: str, names: Iterable[str] | None = None
) -> dict[str, ReleaseHistory]:
    """Each release with records in a namespace.

    Args:
        names: of these releases only.

    Raises:
        UserError: a record that Helm could not have written.
    """
    wanted = None if names is None else set(names)
    revisions: dict[str, list[tuple[int, str, str]]] = {}
    for secret in cluster.list(
        "v1", "Secret", namespace=namespace, labels=helm_release.SELECTOR, metadata=True
    ):
        labels = secret["metadata"].get("labels") or {}
        name, version = labels.get("name", ""), labels.get("version", "")
        if version.isdigit() and (wanted is None or name in wanted):
            entry = (int(version), labels.get("status", ""), secret["metadata"]["name"])
            revisions.setdefault(name, []).append(entry)
    out = {}
    for name, found in sorted(revisions.items()):
        found.sort(reverse=True)
        records = []
        for _, status, secret_name in found:
            if (record := _read_revision(cluster, namespace, secret_name)) is not None:
                records.append(record)
            if status == "deployed":
                break
        if records:
            last = records[-1]
            deployed = last if last.status == "deployed" else None
            between = tuple(records[:-1] if deployed else records)
            out[name] = ReleaseHistory(records[0], deployed, between)
    return out


def _read_revision(cluster: Cluster, namespace: str, name: str) -> HelmRevision | None:
    secret = cluster.get(ObjectKey("v1", "Secret", namespace, name))
    if secret is None:  # Helm keeps the last ten, and takes others away
        return None
    try:
        return helm_release.parse_revision(secret)
    except (ValueError, KeyError, TypeError, OSError, EOFError) as error:
        raise UserError(
            f"Secret {namespace}/{name}: damaged: Helm could not read it either: {error}",
            hint=f"`kubectl delete secret {name} -n {namespace}` makes Helm forget this revision;"
            " the objects stay, and the next apply takes them on",
        ) from error


def fail_pending_revision(cluster: Cluster, namespace: str, record: HelmRevision) -> None:
    """Call a revision failed that was never finished: Helm refuses to go on while it is pending.

    Without it nobody would know what objects it has made.
    """
    key = ObjectKey("v1", "Secret", namespace, record.secret)
    while (secret := cluster.get(key)) is not None and helm_release.parse_revision(
        secret
    ).is_pending:
        try:
            cluster.replace(helm_release.mark_failed(secret))
        except ApiError as error:
            if error.status not in (404, 409):  # it has become another meanwhile: look again
                raise
