"""Work in threads, results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 4  # items that a thread takes at a time: handing over costs as much as reading a small file
CHUNKS_PER_WORKER = 2  # that are worked on or waiting for their turn; bounds the memory


def ordered_map(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, thread_name: str
) -> Iterator[Result]:
    """``work(item)`` of each item in the items' order, at most a few per worker ahead of the consumer.

    Leaving the iterator early, or an error in `work`, drops what has not begun and waits for the rest.
    """
    source = iter(items)
    waiting: deque[Future[list[Result]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix=thread_name) as pool:
        try:
            while chunk := list(islice(source, CHUNK)):
                waiting.append(pool.submit(_work_on, work, chunk))
                if len(waiting) > workers * CHUNKS_PER_WORKER:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _work_on(work: Callable[[Item], Result], chunk: list[Item]) -> list[Result]:
    return [work(item) for item in chunk]
