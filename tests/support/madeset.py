"""A made set of images with Kubeflow's shape, written straight into a registry's storage.

120 images in four families; a family's images share large base layers, and half of them a layer
more. Each is an index of two platforms. Layers hold pseudo-random bytes that nothing compresses,
so that a byte of the set is a byte of the network. What an image is follows from the shape alone.

    made = cached(FULL)                       # 2 GB below ~/.cache/kfdeploy/bench, made once
    made.store(folder)                        # a folder for serve_registry, blobs hard-linked
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import random
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

from kfdeploy.oci.reference import ImageRef, host_qualified_path
from tests.support.standins import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST

TAG: Final = "v1.10.2"
PLATFORMS: Final = ("amd64", "arm64")
CHANGES: Final = 9
_FORMAT: Final = 1
"""Grows when the same shape comes to other bytes."""
_CHUNK: Final = 4 * 1024 * 1024
_STORED: Final = 0xFFFF
_SMALLEST: Final = 64


@dataclass(frozen=True, slots=True)
class Shape:
    """What to make.

    Attributes:
        size: bytes of all layers, each counted once; configs and manifests come on top.
    """

    images: int = 120
    size: int = 2_000_000_000
    seed: str = "kubeflow"


FULL: Final = Shape()
QUICK: Final = Shape(size=100_000_000)
SMALL: Final = Shape(images=12, size=3_000_000)


@dataclass(frozen=True, slots=True)
class _Family:
    """Sizes are parts of the whole, as megabytes of the full set; for one platform.

    Attributes:
        share: of all images.
        bases: layers that all of the family have.
        common: a layer that half of it has.
        own: least and most of an image's own layers.
    """

    name: str
    repository: str
    share: float
    bases: tuple[float, ...]
    common: float
    own: tuple[float, float]
    oci: bool = True


_FAMILIES: Final = (
    _Family("notebook", "ghcr.io/kubeflow/notebooks", 0.15, (135, 60, 30, 0.3), 40, (0.3, 12)),
    _Family("server", "docker.io/kserve", 0.2, (150, 40, 2), 20, (0.2, 10)),
    _Family("controller", "gcr.io/knative-releases", 0.45, (2, 0.8, 0.1), 1, (0.5, 9)),
    _Family("mesh", "docker.io/istio", 0.2, (30, 5, 0.2), 5, (0.2, 8), oci=False),
)
_LARGEST: Final = 140.0
"""One image has a layer of its own that is as large as a base."""


@dataclass(frozen=True, slots=True)
class MadeImage:
    """One image of a set.

    Attributes:
        ref: as Kubernetes' objects name it.
        digest: of its index, or of its manifest where it has but one.
        manifests: digest to (media type, bytes), each after what it names.
        blobs: digest to bytes: configs and layers.
    """

    ref: str
    digest: str
    manifests: Mapping[str, tuple[str, int]]
    blobs: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class MadeSet:
    """A set on disk.

    Attributes:
        folder: has ``blobs/sha256/HEX``, manifests among them, and ``registry``: a registry's
            storage of all of them under their neutral paths, not to be written to.
        images: the set.
        changed: its largest controller, each with other layers of its own under another tag; only
            in ``registry``.
    """

    folder: Path
    images: tuple[MadeImage, ...]
    changed: tuple[MadeImage, ...] = ()

    @property
    def registry(self) -> Path:
        return self.folder / "registry"

    def blob(self, digest: str) -> Path:
        return self.folder / "blobs" / "sha256" / digest.partition(":")[2]

    def store(
        self,
        root: Path,
        images: Iterable[MadeImage] | None = None,
        path_of: Callable[[ImageRef], str] = host_qualified_path,
    ) -> None:
        """Put images into a registry's storage; no registry may run on it meanwhile.

        Args:
            root: the folder that `serve_registry` is given.
            images: all of the set when left out.
            path_of: repository of a reference.
        """
        storage = root / "docker" / "registry" / "v2"
        for image in self.images if images is None else images:
            ref = ImageRef.parse(image.ref)
            repository = storage / "repositories" / path_of(ref)
            for digest in (*image.blobs, *image.manifests):
                number = digest.partition(":")[2]
                data = storage / "blobs" / "sha256" / number[:2] / number / "data"
                if not data.exists():
                    data.parent.mkdir(parents=True)
                    _link(self.blob(digest), data)
            for digest in image.blobs:
                _point(repository / "_layers", digest)
            for digest in image.manifests:
                _point(repository / "_manifests" / "revisions", digest)
            tag = repository / "_manifests" / "tags" / ref.tag
            _point(tag / "index", image.digest)
            (tag / "current").mkdir(parents=True, exist_ok=True)
            (tag / "current" / "link").write_text(image.digest)


def unique(images: Iterable[MadeImage]) -> dict[str, int]:
    """Digest to bytes of all their blobs, each once; manifests are left out."""
    return {digest: size for image in images for digest, size in image.blobs.items()}


def unique_manifests(images: Iterable[MadeImage]) -> dict[str, int]:
    """Digest to bytes of all their manifests and indexes."""
    return {digest: size for image in images for digest, (_, size) in image.manifests.items()}


def cached(shape: Shape) -> MadeSet:
    """The set of this shape, made when it is first asked for.

    It lies in the folder that KFDEPLOY_BENCH_CACHE names, else in ~/.cache/kfdeploy/bench.
    """
    return _cached(shape, lambda folder: make(folder, shape))


def cached_single(size: int) -> MadeSet:
    """A set of one image for one platform with one layer of ``size`` bytes."""
    return _cached(Shape(1, size, "single"), lambda folder: make_single(folder, size))


def make(folder: Path, shape: Shape) -> MadeSet:
    """Write a set into a folder that is empty or not there."""
    recipes, changed = _recipes(shape)
    images = _write(folder, [*recipes, *changed])
    return _finished(MadeSet(folder, images[: len(recipes)], images[len(recipes) :]))


def make_single(folder: Path, size: int) -> MadeSet:
    """Likewise, of `cached_single`."""
    layers = {PLATFORMS[0]: (_LayerRecipe(f"single {size}", size),)}
    return _finished(
        MadeSet(folder, _write(folder, [_Recipe("quay.io/one/single:v1", True, layers)]))
    )


# -- what is made ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _LayerRecipe:
    """A layer: its bytes follow from its name and size."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class _Recipe:
    """An image: for each platform its layers, the lowest first."""

    ref: str
    oci: bool
    layers: Mapping[str, tuple[_LayerRecipe, ...]]


_Sizes = list[tuple[str, float]]
"""Layers by name, the lowest first, and how large each is."""


def _recipes(shape: Shape) -> tuple[list[_Recipe], list[_Recipe]]:
    dice = random.Random(shape.seed)
    parts: list[tuple[_Family, str, _Sizes]] = []
    for family, number in _members(shape.images):
        name = f"{family.name}-{number:03}"
        layers = [(f"{family.name} base {n}", size) for n, size in enumerate(family.bases)]
        if number % 2:
            layers.append((f"{family.name} common", family.common))
        least, most = family.own
        for n in range(dice.choice((1, 1, 2, 3))):
            layers.append((f"{name} own {n}", least * (most / least) ** dice.random()))
        parts.append((family, name, layers))
    parts[0][2].append((f"{parts[0][1]} own large", _LARGEST))
    whole = sum({name: size for _, _, layers in parts for name, size in layers}.values())
    scale = shape.size / (whole * len(PLATFORMS))

    def recipe(
        family: _Family, name: str, layers: Sequence[tuple[str, float]], tag: str
    ) -> _Recipe:
        return _Recipe(
            f"{family.repository}/{name}:{tag}",
            family.oci,
            {
                platform: tuple(
                    _LayerRecipe(f"{shape.seed} {layer} {platform}", round(size * scale))
                    for layer, size in layers
                )
                for platform in PLATFORMS
            },
        )

    def own(part: tuple[_Family, str, _Sizes]) -> float:
        return sum(size for layer, size in part[2] if layer.startswith(part[1]))

    family, name, layers = max((p for p in parts if p[0].name == "controller"), key=own)
    changed = [
        recipe(
            family,
            name,
            [(f"{n} change {number}" if n.startswith(name) else n, size) for n, size in layers],
            f"{TAG}-{number}",
        )
        for number in range(1, CHANGES + 1)
    ]
    return [recipe(*part, TAG) for part in parts], changed


def _members(images: int) -> Iterator[tuple[_Family, int]]:
    """Each image's family and number in it."""
    left = images
    for family in _FAMILIES[1:]:
        number = round(images * family.share)
        left -= number
        yield from ((family, n) for n in range(number))
    yield from ((_FAMILIES[0], n) for n in range(left))


# -- how it is written ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layer:
    digest: str
    size: int
    diff_id: str


def _write(folder: Path, recipes: Sequence[_Recipe]) -> tuple[MadeImage, ...]:
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    wanted = {layer for one in recipes for layers in one.layers.values() for layer in layers}
    ordered = sorted(wanted, key=lambda layer: (-layer.size, layer.name))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = dict(
            zip(ordered, pool.map(lambda one: _write_layer(blobs, one), ordered), strict=True)
        )
    return tuple(_write_image(blobs, recipe, made) for recipe in recipes)


def _write_layer(blobs: Path, recipe: _LayerRecipe) -> _Layer:
    file = blobs / f"new-{hashlib.sha256(recipe.name.encode()).hexdigest()}"
    with file.open("wb") as opened:
        layer = _gzip(opened, _tar(recipe))
    file.rename(blobs / layer.digest.partition(":")[2])
    return layer


def _tar(recipe: _LayerRecipe) -> Iterator[bytes]:
    size = max(_SMALLEST, recipe.size)
    member = tarfile.TarInfo(f"opt/{recipe.name.replace(' ', '-')}")
    member.size = size
    yield member.tobuf(tarfile.USTAR_FORMAT)
    for number, at in enumerate(range(0, size, _CHUNK)):
        seed = f"{recipe.name} {recipe.size} {number}".encode()
        yield hashlib.shake_128(seed).digest(min(_CHUNK, size - at))
    yield bytes(-size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)


def _gzip(out: IO[bytes], pieces: Iterable[bytes]) -> _Layer:
    """Nothing would compress it, and stored blocks are the same with every zlib."""
    packed, plain = hashlib.sha256(), hashlib.sha256()
    size, crc, length = 0, 0, 0

    def put(data: bytes) -> None:
        nonlocal size
        packed.update(data)
        out.write(data)
        size += len(data)

    put(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")
    for piece in pieces:
        plain.update(piece)
        crc = zlib.crc32(piece, crc)
        length += len(piece)
        blocks = []
        for at in range(0, len(piece), _STORED):
            block = piece[at : at + _STORED]
            blocks += [struct.pack("<BHH", 0, len(block), len(block) ^ 0xFFFF), block]
        put(b"".join(blocks))
    put(struct.pack("<BHH", 1, 0, 0xFFFF) + struct.pack("<II", crc, length & 0xFFFFFFFF))
    return _Layer(f"sha256:{packed.hexdigest()}", size, f"sha256:{plain.hexdigest()}")


def _write_image(blobs: Path, recipe: _Recipe, made: Mapping[_LayerRecipe, _Layer]) -> MadeImage:
    if recipe.oci:
        types = (OCI_INDEX, OCI_MANIFEST)
        config_type = "application/vnd.oci.image.config.v1+json"
        layer_type = "application/vnd.oci.image.layer.v1.tar+gzip"
    else:
        types = (DOCKER_LIST, DOCKER_MANIFEST)
        config_type = "application/vnd.docker.container.image.v1+json"
        layer_type = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    manifests: dict[str, tuple[str, int]] = {}
    found: dict[str, int] = {}
    children: list[dict[str, Any]] = []
    for platform, recipes in recipe.layers.items():
        layers = [made[one] for one in recipes]
        config = {
            "architecture": platform,
            "os": "linux",
            "config": {"Labels": {"made": recipe.ref}},
            "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in layers]},
        }
        described = _put(blobs, config_type, config)
        found[described["digest"]] = described["size"]
        found |= {one.digest: one.size for one in layers}
        manifest = {
            "schemaVersion": 2,
            "mediaType": types[1],
            "config": described,
            "layers": [
                {"mediaType": layer_type, "digest": one.digest, "size": one.size} for one in layers
            ],
        }
        child = _put(blobs, types[1], manifest)
        manifests[child["digest"]] = (types[1], child["size"])
        children.append({**child, "platform": {"architecture": platform, "os": "linux"}})
    if len(children) > 1:
        index = {"schemaVersion": 2, "mediaType": types[0], "manifests": children}
        child = _put(blobs, types[0], index)
        manifests[child["digest"]] = (types[0], child["size"])
    return MadeImage(recipe.ref, child["digest"], manifests, found)


def _put(blobs: Path, media_type: str, content: object) -> dict[str, Any]:
    data = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    number = hashlib.sha256(data).hexdigest()
    (blobs / number).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{number}", "size": len(data)}


def _finished(made: MadeSet) -> MadeSet:
    made.store(made.registry, (*made.images, *made.changed))
    content = {name: [asdict(one) for one in getattr(made, name)] for name in ("images", "changed")}
    (made.folder / "set.json").write_text(json.dumps(content))
    return made


def _cached(shape: Shape, write: Callable[[Path], MadeSet]) -> MadeSet:
    home = os.environ.get("KFDEPLOY_BENCH_CACHE")
    base = Path(home) if home else Path.home() / ".cache" / "kfdeploy" / "bench"
    base.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(repr((_FORMAT, shape)).encode()).hexdigest()[:12]
    folder = base / f"made-{shape.images}-{shape.size // 1_000_000}MB-{key}"
    with (base / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "set.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            write(folder)
    content = json.loads((folder / "set.json").read_text())
    images, changed = (tuple(_read(one) for one in content[name]) for name in ("images", "changed"))
    return MadeSet(folder, images, changed)


def _read(content: Mapping[str, Any]) -> MadeImage:
    manifests = {digest: (kind, size) for digest, (kind, size) in content["manifests"].items()}
    return MadeImage(content["ref"], content["digest"], manifests, content["blobs"])


def _point(folder: Path, digest: str) -> None:
    link = folder / "sha256" / digest.partition(":")[2] / "link"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.write_text(digest)


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK}:
            raise
        shutil.copyfile(source, target)
