"""Work in threads: order, errors, and what is left out after one."""

from __future__ import annotations

import threading
import time

import pytest

from kfdeploy.errors import UserError
from kfdeploy.parallel import map_collecting_errors, map_in_threads


def test_results_come_in_the_order_of_the_items() -> None:
    def wait(number: int) -> int:
        time.sleep((5 - number) * 0.01)
        return number * 2

    assert map_in_threads(wait, range(5), 3) == [0, 2, 4, 6, 8]
    assert map_in_threads(wait, [4], 3) == [8]
    assert map_in_threads(wait, [], 3) == []


def test_the_first_exception_leaves_out_what_has_not_begun() -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise UserError("broken")
        time.sleep(0.05)

    before = threading.active_count()
    with pytest.raises(UserError, match="broken"):
        map_in_threads(work, range(50), 2)
    assert len(begun) < 50
    assert threading.active_count() == before


def test_errors_of_all_items_are_raised_together_in_their_order() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        time.sleep((4 - number) * 0.01)
        if number % 2:
            raise UserError(f"item {number}")
        return number

    with pytest.raises(UserError) as caught:
        map_collecting_errors(work, range(4), 4, done.append)
    assert [error.message for error in caught.value.list_errors()] == ["item 1", "item 3"]
    assert sorted(done) == [0, 1, 2, 3]
    assert map_collecting_errors(work, [2, 0], 2) == [2, 0]
