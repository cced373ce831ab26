"""Do work on many items in threads. ^C stops it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from kfdeploy.errors import UserError, raise_all

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def run_in_threads(
    work: Callable[[ItemT], ResultT], items: Iterable[ItemT], jobs: int, stop: Callable[[], None]
) -> Iterator[tuple[ItemT, ResultT]]:
    """Yield each item with its result, as the results come, from ``jobs`` threads.

    No thread is left when this returns.

    Args:
        work: an exception of it ends everything, so it catches what concerns one item only.
        stop: called when the work ends early (^C, an exception of ``work``, or a caller that stops
            iterating); it makes running work end soon.
    """
    left = list(items)
    if len(left) == 1:  # without threads: to import them takes longer than most work
        yield left[0], _run_single(work, left[0], stop)
        return
    from concurrent.futures import ThreadPoolExecutor, as_completed

    pool = ThreadPoolExecutor(max(1, jobs))
    finished = False
    try:
        futures = {pool.submit(work, item): item for item in left}
        for future in as_completed(futures):
            yield futures[future], future.result()
        finished = True
    finally:
        if not finished:
            stop()
        pool.shutdown(wait=True, cancel_futures=True)


def map_in_threads(
    work: Callable[[ItemT], ResultT], items: Iterable[ItemT], jobs: int
) -> list[ResultT]:
    """Return the results in the order of the items, from ``jobs`` threads.

    The first exception ends it: work that has not begun by then is left out.
    """
    listed = list(items)
    results = dict(
        run_in_threads(lambda index: work(listed[index]), range(len(listed)), jobs, lambda: None)
    )
    return [results[index] for index in range(len(listed))]


def map_collecting_errors(
    work: Callable[[ItemT], ResultT],
    items: Iterable[ItemT],
    jobs: int,
    on_done: Callable[[ItemT], None] = lambda item: None,
) -> list[ResultT]:
    """Return the results in the order of the items, from ``jobs`` threads.

    Args:
        on_done: called with each item whose work ended, well or not, as they end.

    Raises:
        UserError: those of all items together, in the order of the items.
    """
    listed = list(items)

    def try_work(index: int) -> ResultT | UserError:
        try:
            return work(listed[index])
        except UserError as error:
            return error

    outcomes: dict[int, ResultT | UserError] = {}
    for index, outcome in run_in_threads(try_work, range(len(listed)), jobs, lambda: None):
        outcomes[index] = outcome
        on_done(listed[index])
    ordered = [outcomes[index] for index in range(len(listed))]
    raise_all([outcome for outcome in ordered if isinstance(outcome, UserError)])
    return [outcome for outcome in ordered if not isinstance(outcome, UserError)]


def _run_single(work: Callable[[ItemT], ResultT], item: ItemT, stop: Callable[[], None]) -> ResultT:
    try:
        return work(item)
    except BaseException:
        stop()
        raise
