"""The plainest mirror: image after image, blob after blob; and images in memory to copy from."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

from kfdeploy.errors import UserError
from kfdeploy.images.lockfile import Lock, LockedImage, tag_of
from kfdeploy.images.naming import MirrorRef
from kfdeploy.mirror.plan import MirrorFailure, MirrorItem
from kfdeploy.mirror.stores import BlobPieces, Destination, Origin, ReadableBlob
from kfdeploy.oci import manifest as manifests
from kfdeploy.oci.manifest import OCI_MANIFEST, Descriptor, ImageTree, Manifest
from kfdeploy.oci.reference import ImageRef, host_qualified_path
from tests.support.refs import written
from tests.support.standins import Standin, make_standin


def large(reference: str, sizes: Sequence[int]) -> Standin:
    """An OCI image whose layers have these sizes and nothing that can be read in them."""
    image = Standin()
    described = []
    for number, size in enumerate((100, *sizes)):
        data = random.Random(f"{reference} {number}").randbytes(size)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        image.blobs[digest] = data
        described.append({"mediaType": "application/x", "digest": digest, "size": size})
    content = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described[0],
        "layers": described[1:],
    }
    body = json.dumps(content).encode()
    image.digest, image.media_type = f"sha256:{hashlib.sha256(body).hexdigest()}", OCI_MANIFEST
    image.manifests[image.digest] = (OCI_MANIFEST, body)
    return image


def locked(images: dict[str, Standin]) -> Lock:
    """The lock of images by their references."""
    found = []
    for ref, image in images.items():
        parsed = ImageRef.parse(ref)
        at = ImageRef(parsed.host, parsed.path, "", image.digest)
        found.append(LockedImage(written(ref), at, image.platforms, image.size))
    return Lock(found)


def items(images: dict[str, Standin], host: str = "r.test") -> list[MirrorItem]:
    """What a mirror of them copies, to HOST/kf, in the order of the lock."""
    return [
        MirrorItem(
            ids=(written(ref),),
            source=ImageRef(
                ImageRef.parse(ref).host, ImageRef.parse(ref).path, "", images[ref].digest
            ),
            target=target(ref, host, images[ref].digest),
            digest=images[ref].digest,
            size=images[ref].size,
            state="copy",
            push_tag=tag_of(ImageRef.parse(ref)),
        )
        for ref in sorted(images)
    ]


def target(ref: str, host: str, digest: str) -> MirrorRef:
    parsed = ImageRef.parse(ref)
    return MirrorRef(ImageRef(host, f"kf/{host_qualified_path(parsed)}"), tag_of(parsed), digest)


class Made:
    """Images in memory, as an origin; counts the blobs that it gives."""

    def __init__(self, images: Iterable[Standin]) -> None:
        self.manifests: dict[str, Manifest] = {}
        self.blobs: dict[str, bytes] = {}
        self.opened: list[str] = []
        self.gone: set[str] = set()
        for image in images:
            self.blobs.update(image.blobs)
            for media_type, body in image.manifests.values():
                found = Manifest.parse(body, media_type)
                self.manifests[found.digest] = found

    def get_host(self, item: MirrorItem) -> str:
        return "made"

    def read_tree(self, item: MirrorItem) -> ImageTree:
        if item.digest in self.gone:
            raise UserError(f"{item.name}: gone")
        return manifests.load_image_tree(
            self.manifests[item.digest], lambda d: self.manifests[d.digest]
        )

    def open_blob(
        self, item: MirrorItem, blob: Descriptor, offset: int
    ) -> AbstractContextManager[ReadableBlob]:
        if blob.digest in self.gone:
            raise UserError(f"{blob.digest}: gone")
        self.opened.append(blob.digest)
        return contextlib.closing(io.BytesIO(self.blobs[blob.digest][offset:]))


class Hashed:
    """A blob on its way, as `Pieces` says."""

    def __init__(self, stream: ReadableBlob, blob: Descriptor, piece: int = 1 << 16) -> None:
        self.size = blob.size
        self._stream = stream
        self._digest = blob.digest
        self._piece = piece

    def __iter__(self) -> Iterator[memoryview]:
        total = hashlib.new(self._digest.partition(":")[0])
        held = b""
        buffer = memoryview(bytearray(self._piece))
        while count := self._stream.readinto(buffer):
            total.update(buffer[:count])
            if held:
                yield memoryview(held)
            held = bytes(buffer[:count])
        if not self._digest.endswith(f":{total.hexdigest()}"):
            raise UserError(f"{self._digest}: its content has another digest")
        if held:
            yield memoryview(held)


def copy(
    items: Iterable[MirrorItem], origin: Origin, destination: Destination
) -> list[MirrorFailure]:
    """Copy them; what fails is returned, and all its blobs that can be had are copied."""
    failed = []
    for item in items:
        try:
            tree = origin.read_tree(item)
        except UserError as error:
            failed.append(MirrorFailure(item, error))
            continue
        place, errors = destination.get_place(item), []
        for blob in tree.blobs:
            if destination.has_blob(place, blob):
                continue
            try:
                with origin.open_blob(item, blob, 0) as stream:
                    destination.put_blob(place, blob, Hashed(stream, blob))
            except UserError as error:
                errors.append(error)
        if errors:
            failed.append(MirrorFailure(item, errors[0]))
        else:
            destination.seal_image(item, tree)
    return failed


class Pushed:
    """A registry on loopback without a sign-in, as a destination."""

    def __init__(self, host: str) -> None:
        self._host = host

    def get_host(self, item: MirrorItem) -> str:
        return self._host

    def get_place(self, item: MirrorItem) -> str:
        return item.repository.path

    def has_blob(self, place: str, blob: Descriptor) -> bool:
        return self._ask("HEAD", f"/v2/{place}/blobs/{blob.digest}")[0] == 200

    def mount_blob(self, place: str, blob: Descriptor, other: str) -> str | None:
        start = f"/v2/{place}/blobs/uploads/?mount={blob.digest}&from={other}"
        status, location, _ = self._ask("POST", start)
        return None if status == 201 else location

    def put_blob(self, place: str, blob: Descriptor, pieces: BlobPieces, begun: str = "") -> None:
        location = begun or self._ask("POST", f"/v2/{place}/blobs/uploads/")[1]
        parts = urlsplit(location)
        body = b"".join(map(bytes, pieces))
        at = f"{parts.path}?{parts.query}&digest={blob.digest}"
        assert self._ask("PUT", at, body, "application/octet-stream")[0] == 201

    def seal_image(self, item: MirrorItem, tree: ImageTree) -> None:
        for one in tree.manifests:
            name = (item.push_tag if one is tree.root else "") or one.digest
            status, _, answer = self._ask(
                "PUT", f"/v2/{item.repository.path}/manifests/{name}", one.body, one.media_type
            )
            assert status == 201, answer

    def digest(self, path: str, tag: str) -> str:
        connection = http.client.HTTPConnection(self._host, timeout=30)
        accept = {"Accept": ",".join(sorted(manifests.MANIFEST_TYPES))}
        connection.request("HEAD", f"/v2/{path}/manifests/{tag}", headers=accept)
        return connection.getresponse().headers.get("docker-content-digest", "")

    def _ask(
        self, method: str, url: str, body: bytes = b"", kind: str = ""
    ) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection(self._host, timeout=30)
        connection.request(method, url, body, {"Content-Type": kind} if kind else {})
        answer = connection.getresponse()
        return answer.status, answer.headers.get("location", ""), answer.read()


def small(*references: str) -> dict[str, Standin]:
    """Small images with layers in common."""
    return {ref: make_standin(ref) for ref in references}
