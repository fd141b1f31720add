"""Work in threads, results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

IN_FLIGHT_PER_WORKER = 4  # items that are worked on or waiting for their turn; bounds the memory


def ordered_map(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, thread_name: str
) -> Iterator[Result]:
    """``work(item)`` of each item in the items' order, at most a few per worker ahead of the consumer.

    Leaving the iterator early, or an error in `work`, drops what has not begun and waits for the rest.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix=thread_name) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= workers * IN_FLIGHT_PER_WORKER:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
