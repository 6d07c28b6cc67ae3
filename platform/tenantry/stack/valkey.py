"""The embedded Valkey: append-only data in VAR, reached through a Unix socket with a password."""

import socket
from urllib.parse import quote

from tenantry.stack.folder import DataFolder
from tenantry.stack.process import Command
from tenantry.stack.programs import Programs


class Valkey:
    """One Valkey server. A second start finds what the first one stored."""

    name = "valkey"

    def __init__(self, folder: DataFolder, programs: Programs, *, durable: bool = True) -> None:
        self._folder = folder
        self._programs = programs
        self._durable = durable
        self._data = folder.servers / "valkey"
        self._socket = folder.server_sockets / "valkey.sock"

    def prepare(self) -> None:
        """Have a folder for its data; the server itself cuts off a half-written last record."""
        if not self._data.exists():
            self._data.mkdir(mode=0o700)
            self._folder.account.own(self._data)

    def command(self) -> Command:
        """How to run the server in the foreground; it reads its settings from stdin, so `ps` shows no password."""
        settings = {
            "port": "0",
            "unixsocket": f'"{self._socket}"',
            "unixsocketperm": "700",
            "requirepass": self._folder.secret("valkey"),
            "dir": f'"{self._data}"',
            "appendonly": "yes" if self._durable else "no",
            "save": '""',
            "maxmemory-policy": "noeviction",  # a broker that evicts loses messages
            "loglevel": "warning",
            "daemonize": "no",
        }
        return Command(
            argv=(str(self._programs.valkey_server), "-"),
            cwd=self._data,
            environment={"PATH": "/usr/bin:/bin"},
            account=self._folder.account,
            stdin="".join(f"{name} {value}\n" for name, value in settings.items()).encode(),
        )

    def is_ready(self) -> bool:
        """Whether it answers a caller with the password."""
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(5)
            try:
                caller.connect(str(self._socket))
                caller.sendall(f"AUTH {self._folder.secret('valkey')}\r\nPING\r\n".encode())
                with caller.makefile("r") as replies:
                    return replies.readline() == "+OK\n" and replies.readline() == "+PONG\n"
            except OSError:
                return False

    def environment(self) -> dict[str, str]:
        """What the platform's settings need to reach it: redis-py's form, and kombu's for the broker."""
        password, path = self._folder.secret("valkey"), quote(str(self._socket))
        return {
            "REDIS_URL": f"unix://:{password}@{path}?db=0",
            "BROKER_URL": f"redis+socket://:{password}@{path}?virtual_host=0",
        }
