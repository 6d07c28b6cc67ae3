"""The embedded servers of one test session: started before Django reads its settings, gone with the session."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tenantry.stack.errors import StackError
from tenantry.stack.folder import DataFolder
from tenantry.stack.servers import EmbeddedServers

PREFIX = "tenantry-tests-"


def start_test_servers() -> Mapping[str, str]:
    """Start PostgreSQL and Valkey over an empty data folder and name them in this process's environment.

    Returns what was added to the environment. Servers that DATABASE_URL or REDIS_URL name are used instead.
    Everything ends and is removed when this process ends; killed, it takes the servers along. Call it once,
    from the main thread.
    """
    _remove_abandoned()
    var = Path(tempfile.mkdtemp(prefix=PREFIX))
    if os.geteuid() == 0:
        var.chmod(0o711)  # the servers' account passes through to its own folder
    servers = EmbeddedServers(var, given=os.environ, durable=False)
    environment = servers.__enter__()
    atexit.register(_stop, servers, var, os.getpid())
    os.environ.update(environment)
    return environment


def _stop(servers: EmbeddedServers, var: Path, starter: int) -> None:
    if os.getpid() != starter:  # a forked child runs its parent's exit handlers, too
        return
    servers.__exit__(None, None, None)
    shutil.rmtree(var, ignore_errors=True)


def _remove_abandoned() -> None:
    """Remove the folders of sessions that were killed, which are those that nobody holds the lock of."""
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/stack.lock"):
        with suppress(OSError, StackError), DataFolder(lock.parent):  # it takes its old sockets along
            shutil.rmtree(lock.parent)
