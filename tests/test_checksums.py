"""``SHA256SUMS``: what is written is read back, and what is damaged is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kfdeploy.checksums import SUMS_FILE, InvalidChecksums, dump_checksums, parse_checksums
from kfdeploy.files import sha256_hex


def test_sums_are_what_sha256sum_checks(tmp_path: Path) -> None:
    files = {"b/x y.txt": b"1", "a.txt": b"2"}
    sums = {path: sha256_hex(data) for path, data in files.items()}
    for path, data in {**files, SUMS_FILE: dump_checksums(sums)}.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", SUMS_FILE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "a.txt: OK\nb/x y.txt: OK\n")


def test_sums_are_read_as_they_are_written() -> None:
    listed = {"a/b": "1" * 64, "a": "2" * 64}
    assert parse_checksums(dump_checksums(listed)) == listed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x\n", "line 1: not a checksum and a path"),
        (f"{'0' * 64}  a", "the last line is incomplete"),
        (f"{'0' * 64}  a\n{'0' * 64}  a\n", "line 2: a is listed twice"),
        (f"{'0' * 64}  /a\n", "line 1: '/a' is not a path below the folder"),
        (f"{'0' * 64}  a/../../b\n", "line 1: 'a/../../b' is not a path below the folder"),
        (f"\\{'0' * 64}  a\\nb\n", "line 1: not a checksum and a path"),
    ],
)
def test_lists_that_lead_out_of_the_folder_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidChecksums) as error:
        parse_checksums(text.encode())
    assert str(error.value) == message
