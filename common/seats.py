"""How much may go on at once in this process, counted for each of those who share it."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Seats:
    """Seats that are taken and given back; nobody waits for one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    @contextmanager
    def seat(self, whose: str, *, most_each: int, most: int | None = None) -> Iterator[bool]:
        """Hold a seat during the block and say whether there was one: fewer than `most_each` of theirs taken, and fewer
        than `most` in all."""
        is_seated = self._take(whose, most_each, most)
        try:
            yield is_seated
        finally:
            if is_seated:
                self._give_back(whose)

    def _take(self, whose: str, most_each: int, most: int | None) -> bool:
        with self._lock:
            if self._taken.get(whose, 0) >= most_each or (most is not None and self._taken.total() >= most):
                return False
            self._taken[whose] += 1
            return True

    def _give_back(self, whose: str) -> None:
        with self._lock:
            self._taken[whose] -= 1
            self._taken += Counter()  # forget who has none left
