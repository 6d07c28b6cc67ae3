"""How much may go on at once in this process, counted for each of those who share it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Seats:
    """Seats that are taken and given back; nobody waits for one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: dict[str, int] = {}

    @contextmanager
    def seat(self, whose: str, *, most_each: int, most: int | None = None) -> Iterator[bool]:
        """Hold a seat during the block and say whether there was one (`take`)."""
        is_seated = self.take(whose, most_each, most)
        try:
            yield is_seated
        finally:
            if is_seated:
                self.give_back(whose)

    def take(self, whose: str, most_each: int, most: int | None = None) -> bool:
        """Whether a seat was taken, which has to be given back: fewer than `most_each` of theirs were, and fewer than
        `most` in all."""
        with self._lock:
            taken = self._taken.get(whose, 0)
            if taken >= most_each or (most is not None and sum(self._taken.values()) >= most):
                return False
            self._taken[whose] = taken + 1
            return True

    def give_back(self, whose: str) -> None:
        """Free a seat that was taken."""
        with self._lock:
            left = self._taken.pop(whose) - 1
            if left:
                self._taken[whose] = left
