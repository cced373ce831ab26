"""Build wheels of the installed kfdeploy and its requirements, without a network.

pip unpacks all files of a wheel, so they can be packed again. Where each file goes is said by
packaging.python.org, "Binary distribution format". The zip's bytes depend only on the files: they
are stored, not deflated, because versions of zlib compress differently.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.metadata
import io
import json
import re
import sys
import sysconfig
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackagePath
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import kfdeploy
from kfdeploy.errors import UserError

_NOT_OF_THE_WHEEL: Final = frozenset(
    {"INSTALLER", "REQUESTED", "RECORD", "RECORD.jws", "RECORD.p7s", "direct_url.json"}
)
_LEAVE_OUT: Final = "leave the wheels out with --images-only"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Wheel:
    """A wheel that can be built.

    Attributes:
        name: its file name.
        files: path in the wheel to the installed file, and whether that is executable.
        info: the name of its ``.dist-info`` folder.
    """

    name: str
    files: Mapping[str, tuple[Path, bool]]
    info: str

    def build(self) -> bytes:
        """Return the wheel's bytes: the same for the same files.

        Raises:
            UserError: a file can't be read.
        """
        out = io.BytesIO()
        lines = []
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            for path, (source, is_executable) in sorted(self.files.items()):
                try:
                    data = source.read_bytes()
                except OSError as error:
                    reason = (error.strerror or str(error)).lower()
                    raise UserError(f"{source}: {reason}", hint=_LEAVE_OUT) from error
                if ".data/scripts/" in path:
                    data = re.sub(rb"\A#!.*python.*", b"#!python", data)
                _add_file(archive, path, data, is_executable)
                lines.append(f"{_quote_path(path)},sha256={_record_hash(data)},{len(data)}\n")
            record = f"{self.info}/RECORD"
            _add_file(archive, record, "".join([*lines, f"{record},,\n"]).encode(), False)
        return out.getvalue()


def list_installed(name: str = "kfdeploy") -> list[Wheel]:
    """Return wheels of a distribution and of everything it requires here, sorted.

    Raises:
        UserError: a distribution is not installed, was not installed by pip, or was changed.
    """
    return [_make_wheel(found) for _, found in sorted(_collect_distributions(name).items())]


def describe_platform() -> tuple[str, str]:
    """Return the Python and the platform that wheels of this machine are for."""
    version = ".".join(map(str, sys.version_info[:2]))
    return f"{sys.implementation.name} {version}", sysconfig.get_platform()


def _collect_distributions(name: str) -> dict[str, Distribution]:
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    left = [(name, "")]
    while left:
        name, extra = left.pop()
        key = (canonicalize_name(name), extra)
        if key in seen:
            continue
        seen.add(key)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise UserError(
                f"{name}: is not installed, and its wheel can't be made",
                hint=f"install kfdeploy by pip; or {_LEAVE_OUT}",
            ) from error
        found[key[0]] = distribution
        for text in distribution.requires or ():
            required = Requirement(text)
            if required.marker is None or required.marker.evaluate({"extra": extra}):
                left += [(required.name, each) for each in ("", *sorted(required.extras))]
    return found


def _make_wheel(distribution: Distribution) -> Wheel:
    name = distribution.metadata["Name"]
    files = distribution.files
    info = next((p.parts[0] for p in files or () if p.parts[0].endswith(".dist-info")), "")
    text = distribution.read_text("WHEEL")
    if not files or not info or text is None:
        raise UserError(
            f"{name}: was not installed by pip, and its wheel can't be made",
            hint=f"install kfdeploy by pip into a virtual environment; or {_LEAVE_OUT}",
        )
    inside = dict(_map_files(distribution, files, info))
    if _is_editable(distribution):
        inside = {path: found for path, found in inside.items() if path.startswith(f"{info}/")}
        inside |= _list_package_files(distribution)
    fields = [line.partition(": ") for line in text.splitlines()]
    build = next((value for key, _, value in fields if key == "Build"), "")
    tags = [value.split("-") for key, _, value in fields if key == "Tag"]
    together = [".".join(sorted({tag[n] for tag in tags})) for n in range(3)]
    stem = info.removesuffix(".dist-info")
    return Wheel("-".join([stem, *([build] if build else []), *together]) + ".whl", inside, info)


def _map_files(
    distribution: Distribution, files: Iterable[PackagePath], info: str
) -> Iterator[tuple[str, tuple[Path, bool]]]:
    """Yield the path in the wheel of each installed file that RECORD lists, and the file."""
    made = {point.name for point in distribution.entry_points if "_scripts" in point.group}
    for path in files:
        if "__pycache__" in path.parts or (
            path.parts[0] == info and "/".join(path.parts[1:]) in _NOT_OF_THE_WHEEL
        ):
            continue
        at = Path(str(distribution.locate_file(path)))
        target = path.as_posix()
        if path.parts[0] == "..":
            # Beside site-packages: a script, or data below the prefix.
            below = at.resolve().relative_to(Path(sys.prefix).resolve()).as_posix()
            folder, _, rest = below.partition("/")
            if folder in ("bin", "Scripts"):
                if rest in made:
                    continue  # pip creates it from the entry points
                target = f"{info.removesuffix('.dist-info')}.data/scripts/{rest}"
            else:
                target = f"{info.removesuffix('.dist-info')}.data/data/{below}"
        _check_unchanged(distribution, path, at)
        yield target, (at, bool(at.stat().st_mode & 0o100))


def _check_unchanged(distribution: Distribution, path: PackagePath, at: Path) -> None:
    try:
        data = at.read_bytes()
    except OSError as error:
        raise UserError(
            f"{at}: {(error.strerror or '').lower()}: {distribution.metadata['Name']} lacks it",
            hint=f"install it again; or {_LEAVE_OUT}",
        ) from error
    if path.hash is not None and path.hash.value != _record_hash(data, path.hash.mode):
        raise UserError(
            f"{at}: was changed after {distribution.metadata['Name']} was installed",
            hint=f"install it again; or {_LEAVE_OUT}",
        )


def _is_editable(distribution: Distribution) -> bool:
    with contextlib.suppress(ValueError, AttributeError):
        url = json.loads(distribution.read_text("direct_url.json") or "{}")
        return bool(url.get("dir_info", {}).get("editable"))
    return False


def _list_package_files(distribution: Distribution) -> dict[str, tuple[Path, bool]]:
    """Return the files of kfdeploy if it is installed as a link to them (``pip install -e``)."""
    if canonicalize_name(distribution.metadata["Name"]) != kfdeploy.__name__:
        raise UserError(
            f"{distribution.metadata['Name']}: is installed as a link to a folder, and its wheel"
            " can't be made",
            hint=f"install it by pip without -e; or {_LEAVE_OUT}",
        )
    root = Path(kfdeploy.__file__).parent
    return {
        f"{root.name}/{path.relative_to(root).as_posix()}": (path, False)
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


def _add_file(archive: zipfile.ZipFile, path: str, data: bytes, is_executable: bool) -> None:
    entry = zipfile.ZipInfo(path, _EPOCH)
    entry.create_system = 3
    entry.external_attr = (0o100755 if is_executable else 0o100644) << 16
    archive.writestr(entry, data)


def _record_hash(data: bytes, algorithm: str = "sha256") -> str:
    digest = hashlib.new(algorithm, data).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _quote_path(path: str) -> str:
    return f'"{path}"' if "," in path else path
