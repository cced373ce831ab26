"""References in real Go programs: the exact ones, with the flags that redirect them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from kfdeploy.scan.content.binary import BinaryScanner
from kfdeploy.scan.content.candidate import LIKELY, Candidate
from tests.support import goprograms

DIGEST = "sha256:" + "0123456789abcdef" * 4
HELD = {
    "alpine:3.10",
    "ghcr.io/acme/delivery:latest",
    "ghcr.io/acme/viewer",
    f"quay.io/acme/cache-server@{DIGEST}",
    "filebrowser/filebrowser:latest",
    "quay.io/acme/executor",
    "registry.acme.dev/team/templated:4.5.6",
}
"""All that tests/data/goprogram holds."""


def likely(program: Path | bytes, piece: int = 1 << 20) -> Mapping[str, Candidate]:
    content = program if isinstance(program, bytes) else program.read_bytes()
    looked = BinaryScanner(content[: 64 << 10])
    for start in range(0, len(content), piece):
        looked.feed(content[start : start + piece])
    found: dict[str, Candidate] = {}
    for _, one in looked.find_candidates():
        if one.score >= LIKELY and one.score > getattr(found.get(one.ref), "score", 0):
            found[one.ref] = one
    return found


@pytest.mark.parametrize(
    ("arch", "stripped", "pie"),
    [
        ("amd64", True, False),
        ("amd64", False, False),
        ("amd64", True, True),
        ("arm64", True, False),
    ],
)
def test_all_references_of_a_go_program_are_found_and_nothing_else(
    arch: str, stripped: bool, pie: bool
) -> None:
    assert set(likely(goprograms.small(arch, stripped=stripped, pie=pie))) == HELD


@pytest.mark.parametrize("piece", [4096, 65536 + 7, 1 << 22])
def test_it_does_not_matter_in_which_pieces_a_program_is_read(piece: int) -> None:
    assert set(likely(goprograms.small(), piece)) == HELD


def test_flags_and_variables_that_code_uses_beside_a_default_are_named() -> None:
    found = likely(goprograms.small())
    assert found["alpine:3.10"].near[0] == "--init-container-image"
    assert found["ghcr.io/acme/delivery:latest"].near[0] == "--delivery-image"
    assert found["filebrowser/filebrowser:latest"].near[0] == "SERVER_IMAGE"
    assert found["quay.io/acme/executor"].joined


@pytest.mark.slow  # the operator is built on request
def test_a_real_operator_holds_what_its_source_holds() -> None:
    found = likely(goprograms.training_operator())
    assert set(found) == {"alpine:3.10", "ghcr.io/kubeflow/training-v1/kubectl-delivery:latest"}
    assert found["alpine:3.10"].near == ("--pytorch-init-container-image",)
    delivery = found["ghcr.io/kubeflow/training-v1/kubectl-delivery:latest"]
    assert delivery.near == ("--mpi-kubectl-delivery-image",)


@pytest.mark.parametrize("seed", range(6))
def test_a_program_that_is_cut_or_scrambled_is_no_failure(seed: int) -> None:
    content = bytearray(goprograms.small().read_bytes())
    step = 1009 + seed * 97
    for at in range(24 if seed % 2 else 4096, len(content), step):
        content[at] ^= (at * 31 + seed) & 0xFF
    likely(bytes(content[: len(content) * (seed + 1) // 6]))


def test_a_program_in_another_language_has_its_strings_ended_by_zeros() -> None:
    head = b"\x7fELF\x02\x01\x01" + b"\0" * 9 + b"\x03\0\xb7\0" + b"\0" * 44
    content = head + b"\0usage\0quay.io/acme/native:2.1\0alpine:3.10\0http://x/a:1\0" + b"\0" * 900
    assert set(likely(content)) == {"quay.io/acme/native:2.1", "alpine:3.10"}
