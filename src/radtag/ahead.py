"""Read files in threads, ahead of whoever takes them, and in their order."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Step(Generic[Item, Value]):
    """Something read of an item; or, without value, its end, with the error that ended it if there was one."""

    item: Item
    value: Value | None = None
    error: Exception | None = None


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Iterator[Value]], *, threads: int, ahead: int
) -> Iterator[Step[Item, Value]]:
    """Reads items in threads, and gives what was read in the order of the items.

    Of an item that gives many values, only a few are read before they are taken.

    Args:
        items: what to read.
        read: gives an item's values; called in a thread.
        threads: how many.
        ahead: items that may be read before they are taken.

    Yields:
        A step for each value; after an item's last value, a step without one.
    """
    stop = threading.Event()

    def fill(item: Item, into: queue.Queue[Step[Item, Value]]) -> None:
        def put(step: Step[Item, Value]) -> None:
            while not stop.is_set():
                try:
                    into.put(step, timeout=0.1)
                    return
                except queue.Full:
                    continue

        error = None
        try:
            for value in read(item):
                put(Step(item, value))
                if stop.is_set():
                    return
        except Exception as caught:
            error = caught
        put(Step(item, error=error))

    waiting: deque[queue.Queue[Step[Item, Value]]] = deque()
    left = iter(items)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="read")
    try:
        while True:
            for item in islice(left, max(ahead, threads) - len(waiting)):
                into: queue.Queue[Step[Item, Value]] = queue.Queue(maxsize=2)
                pool.submit(fill, item, into)
                waiting.append(into)
            if not waiting:
                return
            while (step := waiting[0].get()).value is not None:
                yield step
            yield step
            waiting.popleft()
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def map_ahead(do: Callable[[Item], Value], items: Iterable[Item], *, threads: int, ahead: int) -> Iterator[Value]:
    """As ``map``, in threads and ahead of whoever takes the values; items are taken in the caller's thread."""
    for step in read_ahead(items, lambda item: iter([do(item)]), threads=threads, ahead=ahead):
        if step.error is not None:
            raise step.error
        if step.value is not None:
            yield step.value
