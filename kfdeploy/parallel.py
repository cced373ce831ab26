"""Work over many items in threads, that ^C stops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def run_in_threads(
    work: Callable[[ItemT], ResultT], items: Iterable[ItemT], jobs: int, stop: Callable[[], None]
) -> Iterator[tuple[ItemT, ResultT]]:
    """Yield each item with its result as they come, from ``jobs`` threads.

    Args:
        work: its exceptions end everything, so it catches what concerns one item only.
        stop: called when the work is broken off (^C, an exception in ``work``, or a consumer that
            ends early): it makes running work end soon. No thread is left when this returns.
    """
    left = list(items)
    if len(left) == 1:  # no threads for it: to import them takes longer than most work
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


def _run_single(work: Callable[[ItemT], ResultT], item: ItemT, stop: Callable[[], None]) -> ResultT:
    try:
        return work(item)
    except BaseException:
        stop()
        raise
