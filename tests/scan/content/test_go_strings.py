"""Where packed constants begin and end, told by the few whose address and length are known."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kfdeploy.scan.content.go_strings import StringTable

BASE = 0x400000


def run_of(words: Sequence[str]) -> tuple[str, dict[str, int]]:
    """Words as Go's linker packs them, and each one's address."""
    packed = sorted(set(words), key=len)
    text, places = "", {}
    for word in packed:
        places[word] = BASE + len(text)
        text += word
    return text, places


def words(lengths: range, each: int) -> list[str]:
    return [f"{number:0{length}}" for length in lengths for number in range(each)]


LONG = words(range(3, 60), 9)


def known(places: dict[str, int], every: int) -> list[tuple[int, int]]:
    return [
        (at, len(word)) for number, (word, at) in enumerate(places.items()) if not number % every
    ]


@pytest.mark.parametrize("every", [1, 2, 4])
def test_every_constant_is_told_where_some_of_its_length_are_known(every: int) -> None:
    text, places = run_of(LONG)
    table = StringTable(known(places, every))
    told = 0
    for word, at in places.items():
        for inside in (at, at + len(word) // 2, at + len(word) - 1):
            bounds = table.find_bounds(inside)
            assert word in {text[b.start - BASE : b.end - BASE] for b in bounds}
            told += any(b.sure for b in bounds)
            assert all((b.start, b.length) == (at, len(word)) for b in bounds if b.sure)
    assert told > 3 * len(places) * 0.9


def test_a_border_between_two_lengths_is_told_where_only_one_fits() -> None:
    text, places = run_of([*LONG, "alpine:3.10", "alpine:3.1"])
    pairs = [(at, len(word)) for word, at in places.items() if not word.startswith("alpine")]
    table = StringTable(pairs)
    for word in ("alpine:3.10", "alpine:3.1"):
        (found,) = table.find_bounds(places[word] + 6)
        assert text[found.start - BASE : found.end - BASE] == word
        assert found.sure


def test_pairs_that_are_no_strings_are_outvoted() -> None:
    text, places = run_of(LONG)
    noise = [(BASE + number * 37 % len(text), number % 50 + 3) for number in range(40)]
    table = StringTable([*known(places, 1), *noise])
    wrong = [word for word, at in places.items() if table.find_bounds(at)[0].start != at]
    assert not wrong


def test_a_longer_run_of_doubtful_pairs_elsewhere_is_not_taken_for_the_constants() -> None:
    _, places = run_of(LONG)
    _, elsewhere = run_of(words(range(3, 60), 20))
    other = [(at - (1 << 24), len(word)) for word, at in elsewhere.items()]
    table = StringTable(known(places, 2), [*other, *known(places, 1)])
    wrong = [word for word, at in places.items() if table.find_bounds(at)[0].start != at]
    assert not wrong
    assert StringTable((), known(places, 1)).find_bounds(places[LONG[40]])[0].sure


def test_too_few_known_constants_tell_nothing() -> None:
    _, places = run_of(LONG)
    table = StringTable(known(places, 1)[:50])
    assert not table
    assert table.find_bounds(BASE + 20) == ()


def test_nothing_is_told_far_from_the_run() -> None:
    _, places = run_of(LONG)
    table = StringTable(known(places, 1))
    assert table.find_bounds(BASE - (1 << 20)) == ()
    assert table.find_bounds(BASE + (1 << 20)) == ()
