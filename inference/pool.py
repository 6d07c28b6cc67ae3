"""The pool of loaded models as a Django cache: a client of the machine's model host, as memcached's is of memcached.

    runner = caches["models"].get_or_set(pool_key(tenant, version), loader)

What comes back is a connection to the confined runner that holds the version; nothing is loaded in this process.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any, cast

from django.core.cache import caches
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache

from runtimes.client import HostClient, HostStats, LoadRequest, Runner

_clients: dict[str, HostClient] = {}
_clients_lock = threading.Lock()


def client_of(address: str) -> HostClient:
    """The process's one client of the model host at this address."""
    client = _clients.get(address)
    if client is None:
        with _clients_lock:
            client = _clients.setdefault(address, HostClient(address))
    return client


def model_pool() -> "ModelPool":
    """The machine's pool, as the settings name it."""
    return cast(ModelPool, caches["models"])


class ModelPool(BaseCache):
    """Runners by pool key. Django makes one instance a thread; all of them share the process's one client.

    Only what a pool of processes can mean is offered: a runner is had by `get_or_set` with its loader; `set` and `add`
    have no sense, since a runner is loaded by the host and never by its client.
    """

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        self.address = location.removeprefix("unix:")

    @property
    def client(self) -> HostClient:
        """The process's client of the model host."""
        return client_of(self.address)

    def get_or_set(  # type: ignore[override]
        self,
        key: str,
        default: Callable[[], LoadRequest],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        deadline_s: float | None = None,
    ) -> Runner:
        """A connection to the runner of `key`; `default` is called only if no runner holds it, once, whoever waits.

        deadline_s: how long the caller can wait; `default` itself, once it runs, is waited for (`HostClient.runner`).

        Raises:
            RuntimeFault: it cannot be loaded, or not in time (`DeadlineExceeded`), or the model host is away
                (`HostUnavailable`).
        """
        return self.client.runner(key, default, deadline_s)

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        """A connection to the runner of `key` if one holds it now, or the default.

        Nothing can be loaded over it: a runner that is evicted before it is asked raises `RunnerDied`.
        """
        return self.client.loaded_runner(key) or default

    def has_key(self, key: str, version: int | None = None) -> bool:
        return self.client.resident(key)

    def touch(self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Whether a runner holds `key`; others are evicted before it then. Runners have no time to live, but turns."""
        return self.client.touch(key)

    def delete(self, key: str, version: int | None = None) -> bool:
        """End the runners of `key`; whether there was one."""
        return self.client.evict(key)

    def delete_many(self, keys: Iterable[str], version: int | None = None) -> None:
        for key in keys:
            self.delete(key)

    def clear(self) -> None:
        """End every runner of this machine."""
        self.client.clear()

    def set(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        raise NotImplementedError("runners are loaded by the model host: use get_or_set")

    add = set  # type: ignore[assignment]

    def stats(self) -> HostStats:
        """What the model host counts and measures."""
        return self.client.stats()

    def close(self, **kwargs: Any) -> None:
        """Nothing: Django calls this at the end of each request, and the connections outlive requests."""
