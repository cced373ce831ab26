"""`upstream.lock` as it is written and read."""

from __future__ import annotations

import pytest

from kfdeploy.upstream.lockfile import (
    InvalidUpstreamLock,
    LockedRemote,
    LockedUpstream,
    UpstreamLock,
)

LOCK = UpstreamLock(
    LockedUpstream("kubeflow-26.03", "26.03", "", "", "ab" * 32),
    (
        LockedRemote(
            "https://h/b.yaml", "", "", "cd" * 32, "h/b.yaml", ("x/kustomization.yaml:7",)
        ),
        LockedRemote(
            "https://github.com/o/r//d?ref=1e3",
            "1e3",
            "12" * 20,
            "ef" * 32,
            "github.com/o/r@1e3/d",
            ("z/kustomization.yaml:1", "a/kustomization.yaml:2"),
        ),
    ),
)


def test_what_is_written_is_read_again() -> None:
    read = UpstreamLock.parse(LOCK.dump())
    assert read.upstream == LOCK.upstream
    assert {r.url for r in read.remotes} == {r.url for r in LOCK.remotes}
    assert read.dump() == LOCK.dump()


def test_the_text_is_sorted_and_quoted() -> None:
    assert LOCK.dump() == (
        "# Written by `kfdeploy vendor`: where each part of upstream/ came from. Do not edit.\n"
        '# A folder\'s sha256 is that of the lines "SHA256  PATH" of its files, sorted by path.\n'
        "version: 1\n"
        "upstream:\n"
        '  source: "kubeflow-26.03"\n'
        '  version: "26.03"\n'
        f'  sha256: "{"ab" * 32}"\n'
        "remotes:\n"
        '- url: "https://github.com/o/r//d?ref=1e3"\n'
        '  ref: "1e3"\n'
        f'  commit: "{"12" * 20}"\n'
        f'  sha256: "{"ef" * 32}"\n'
        '  path: "github.com/o/r@1e3/d"\n'
        "  usedBy:\n"
        '  - "a/kustomization.yaml:2"\n'
        '  - "z/kustomization.yaml:1"\n'
        '- url: "https://h/b.yaml"\n'
        f'  sha256: "{"cd" * 32}"\n'
        '  path: "h/b.yaml"\n'
        "  usedBy:\n"
        '  - "x/kustomization.yaml:7"\n'
    )


def test_no_remotes_is_an_empty_list() -> None:
    lock = UpstreamLock(LOCK.upstream, ())
    assert UpstreamLock.parse(lock.dump()) == lock


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 2\n", "version: must be 1"),
        ("a: [", "broken YAML"),
        ("version: 1\nremotes: []\n", "upstream: not a mapping"),
        (
            "version: 1\nupstream: {source: a, version: 1.0, sha256: x}\nremotes: []",
            "upstream.version",
        ),
        ("version: 1\nupstream: {}\n", "remotes: not a list"),
        (
            'version: 1\nupstream: {source: a, version: "1", sha256: x}\nremotes: [{}]',
            "remotes[0].usedBy",
        ),
    ],
)
def test_a_broken_lock_names_its_key(text: str, message: str) -> None:
    with pytest.raises(InvalidUpstreamLock, match=message.replace("[", r"\[")):
        UpstreamLock.parse(text)
