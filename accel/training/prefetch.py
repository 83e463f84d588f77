"""Read ahead in a thread, a few items at most, so that reading and computing overlap and memory stays small."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

_DEPTH = 3
"""Items that are made before they are asked for."""


@contextmanager
def prefetched(items: Iterator[T], depth: int = _DEPTH) -> Iterator[Iterator[T]]:
    """Give an iterator whose items a thread makes ahead; the thread ends with the block.

    An error of the thread is raised where the item that it belongs to would have come.
    """
    ahead = _Ahead(items, depth)
    thread = threading.Thread(target=ahead.make, name="read ahead", daemon=True)
    thread.start()
    try:
        yield ahead.read()
    finally:
        ahead.end()
        thread.join()


@dataclass(frozen=True, slots=True)
class _Item(Generic[T]):
    held: T


class _Ahead(Generic[T]):
    def __init__(self, items: Iterator[T], depth: int) -> None:
        self._items = items
        self._free = threading.Semaphore(depth)
        self._made: queue.SimpleQueue[_Item[T] | BaseException | None] = queue.SimpleQueue()
        self._ended = False

    def make(self) -> None:
        """Make items as long as there is room for them."""
        try:
            while self._has_room() and (item := next(self._items, None)) is not None:
                self._made.put(_Item(item))
        except BaseException as error:  # noqa: BLE001  (it is raised again by the reader)
            self._made.put(error)
        else:
            self._made.put(None)

    def read(self) -> Iterator[T]:
        """Yield the items."""
        while (item := self._made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            self._free.release()
            yield item.held

    def end(self) -> None:
        """Make no more."""
        self._ended = True
        self._free.release()

    def _has_room(self) -> bool:
        self._free.acquire()
        return not self._ended
