"""Publish a release set to the private registry, as an OCI artifact."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from kfdeploy.errors import DIFFERENCE, WRONG_USE, UserError
from kfdeploy.files import read_bytes
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.oci.registry.push import RegistryPusher
from kfdeploy.releaseset import artifact
from kfdeploy.releaseset.artifact import Artifact
from kfdeploy.releaseset.folder import SetFolder

if TYPE_CHECKING:
    from kfdeploy.oci.registry.settings import PrivateRegistry

_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")

TagState = Literal["present", "push", "move"]


@dataclass(frozen=True)
class Publication:
    """A set, and the tags that it is to have.

    Attributes:
        repository: the repository that it goes to.
        tag: the tag that only this content has.
        states: each tag, and what is to be done with it; ``move`` takes it from another set.
    """

    artifact: Artifact
    repository: ImageRef
    tag: str
    states: dict[str, TagState]

    @property
    def ref(self) -> str:
        """``HOST/PATH:TAG@DIGEST``."""
        place = self.repository
        return str(ImageRef(place.host, place.path, self.tag, self.artifact.digest))

    @property
    def is_there(self) -> bool:
        return all(state == "present" for state in self.states.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "ref": self.ref,
            "digest": self.artifact.digest,
            "bytes": self.artifact.size,
            "tags": self.states,
        }


def pack_set(found: SetFolder) -> Artifact:
    """Build the artifact of a set.

    Raises:
        UserError: the set is not as `render` wrote it.
    """
    if altered := list(found.list_alterations()):
        raise UserError(
            f"{found.name}: {altered[0]}" + (f", and {len(altered) - 1} more" * (len(altered) > 1)),
            hint="run `kfdeploy render`: a set that was changed by hand is not published",
            exit_code=DIFFERENCE,
        )
    files = {
        path.relative_to(found.folder).as_posix(): read_bytes(path)
        for path in sorted(found.folder.rglob("*"))
        if path.is_file()
    }
    return artifact.build_artifact(found.name, found.summary, files, found.digest)


def set_content_tag(found: SetFolder) -> str:
    """Return the tag that only this content of a set has."""
    return artifact.content_tag(found.name, found.summary.upstream, found.digest)


def plan_publication(
    found: SetFolder, registry: PrivateRegistry, client: RegistryClient, tags: Sequence[str] = ()
) -> Publication:
    """Find out what the private registry has of a set.

    Args:
        tags: further tags, which may be another set's now.

    Raises:
        UserError: the set was changed, a tag is invalid or can't move, or the registry can't be
            asked.
    """
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise UserError(
                f"--tag {tag}: a tag is up to 128 letters, digits, '_', '.' and '-'",
                exit_code=WRONG_USE,
            )
    packed, own = pack_set(found), set_content_tag(found)
    repository = artifact.repository_of(registry.host, registry.prefix)
    states: dict[str, TagState] = {}
    for tag in (own, *tags):
        there = client.get_digest(ImageRef(repository.host, repository.path, tag))
        states[tag] = "push" if there is None else "move"
        if there == packed.digest:
            states[tag] = "present"
        elif there is not None and registry.immutable_tags:
            raise UserError(
                f"{repository}:{tag} is {there}, and registries.private.immutableTags says that"
                " tags do not move",
                hint=f"leave --tag {tag} out: {own} is this set's own",
            )
    return Publication(packed, repository, own, states)


def push_set(
    todo: Publication, registry: PrivateRegistry, client: RegistryClient, root: Path
) -> None:
    """Push what is missing; a tag is written when everything else is there.

    Args:
        root: folder that `createRepository` is run in.

    Raises:
        RegistryError: the registry refuses it, or does not answer.
    """
    uploads = RegistryPusher(
        client, registry.creation_command if registry.create_repository else None, root
    )
    if "present" not in todo.states.values():
        for blob, body in todo.artifact.blobs:
            if not uploads.has_blob(todo.repository, blob):
                uploads.push_blob(todo.repository, blob, body)
    for tag, state in todo.states.items():
        if state != "present":
            uploads.push_manifest(todo.repository, todo.artifact.manifest, tag)
    uploads.confirm_manifest(todo.repository, todo.artifact.manifest)
