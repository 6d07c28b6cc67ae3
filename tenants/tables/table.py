"""A bounded table of what is asked for with every request."""

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from tenants.tables.listener import Listener, listener

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Table(Generic[K, V]):
    """What was loaded by its key, until somebody changes what it was made from. All threads share the values.

    kind: the first word of the notifications that are about this table.
    tag_of: the second word of those about a key and its value; all of one tag go together.
    most: how much is kept, counted in what `weigh` says of each value; the oldest go first.
    most_absent: for how many keys it is kept that there is nothing; they go with any change of the kind.
    """

    def __init__(
        self,
        kind: str,
        *,
        tag_of: Callable[[K, V], str],
        most: int,
        most_absent: int = 0,
        weigh: Callable[[V], int] = lambda value: 1,
        source: Listener = listener,
    ) -> None:
        self._tag_of, self._most, self._most_absent, self._weigh = tag_of, most, most_absent, weigh
        self._lock = threading.Lock()
        self._values: dict[K, V] = {}
        self._absent: dict[K, None] = {}
        self._keys_by_tag: defaultdict[str, set[K]] = defaultdict(set)
        self._weight = 0
        self._changes = 0
        self._source = source
        source.subscribe(kind, self)

    def __len__(self) -> int:
        return len(self._values) + len(self._absent)

    def get(self, key: K, load: Callable[[], V | None]) -> V | None:
        """The value of a key: the remembered one while it may be believed, else what `load` finds now.

        load: None where there is nothing. It runs in the caller's thread, perhaps in several at once.
        """
        if not self._source.is_believable():
            return load()
        found = self._values.get(key)
        if found is not None or key in self._absent:
            return found
        seen = self._changes
        found = load()
        with self._lock:
            if self._changes == seen:  # else what was loaded may be from before a change that was heard meanwhile
                self._keep(key, found)
        return found

    def forget(self, tag: str) -> None:
        """Drop the values of this tag, and all that is said to be absent."""
        with self._lock:
            self._changes += 1
            self._absent.clear()
            for key in self._keys_by_tag.pop(tag, ()):
                self._weight -= self._weigh(self._values.pop(key))

    def forget_all(self) -> None:
        """Drop everything."""
        with self._lock:
            self._changes += 1
            self._absent.clear()
            self._values.clear()
            self._keys_by_tag.clear()
            self._weight = 0

    def begin_in_fork(self) -> None:
        """Be empty in a forked child, whatever a thread of its parent was doing."""
        self._lock = threading.Lock()
        self.forget_all()

    def _keep(self, key: K, found: V | None) -> None:
        if found is None:
            if self._most_absent:
                _make_room(self._absent, self._most_absent)
                self._absent[key] = None
            return
        self._drop(key)
        weight = self._weigh(found)
        while self._values and self._weight + weight > self._most:
            self._drop(next(iter(self._values)))
        if weight <= self._most:
            self._values[key] = found
            self._keys_by_tag[self._tag_of(key, found)].add(key)
            self._weight += weight

    def _drop(self, key: K) -> None:
        value = self._values.pop(key, None)
        if value is None:
            return
        self._weight -= self._weigh(value)
        tag = self._tag_of(key, value)
        self._keys_by_tag[tag].discard(key)
        if not self._keys_by_tag[tag]:
            del self._keys_by_tag[tag]


def _make_room(keys: dict[K, None], most: int) -> None:
    while len(keys) >= most:
        del keys[next(iter(keys))]
