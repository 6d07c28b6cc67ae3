"""VAR, the folder that holds everything a stack keeps, and the folder of its sockets."""

import fcntl
import hashlib
import json
import os
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tenantry.stack.account import Account, account_of, servers_account
from tenantry.stack.errors import BadStart, StackError

LONGEST_SOCKET_PATH = 107  # sun_path holds 108 bytes, the closing zero included
LONGEST_SOCKET_NAME = 40  # of the paths below the sockets' folder; the model host adds names of its own
ELSEWHERE = Path("/var/lib/tenantry")


class DataFolder:
    """VAR, locked for one stack. Use as a context manager, or call `close`.

    What lies in it:
        stack.lock           held while a stack runs
        stack.env            the settings of the running stack, for manage.py
        secrets.json         the servers' passwords
        secret_key           Django's
        sockets.location     where this run's sockets are
        servers/             the servers' data, or
        servers.location     where that is, if their account cannot enter VAR
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        _make_folder(self.path)
        self._lock = _lock(self.path)
        try:
            self.account, self.servers = self._find_servers()
            self.sockets = self._make_sockets()
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> "DataFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove what only a running stack has, and let the next one in."""
        for name in ("stack.env", "sockets.location"):
            self.file(name).unlink(missing_ok=True)
        shutil.rmtree(self.sockets, ignore_errors=True)
        os.close(self._lock)

    def file(self, name: str) -> Path:
        return self.path / name

    def write(self, name: str, text: str) -> None:
        """Write one of VAR's files whole or not at all, readable by its owner alone."""
        fresh = self.file(f".{name}.new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.file(name))

    def write_environment(self, environment: Mapping[str, str]) -> None:
        """Leave the running stack's settings in VAR/stack.env."""
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in sorted(environment.items())]
        self.write("stack.env", "# Written by the running stack; read by manage.py.\n" + "".join(lines))

    def secret(self, name: str) -> str:
        """The password of this name, made at its first use and kept."""
        kept = self.file("secrets.json")
        passwords: dict[str, str] = json.loads(kept.read_text()) if kept.exists() else {}
        if name not in passwords:
            passwords[name] = secrets.token_hex(32)
            self.write("secrets.json", json.dumps(passwords, indent=2))
        return passwords[name]

    def ensure_secret_key(self) -> None:
        """Have VAR/secret_key, which the settings read where SECRET_KEY is not given."""
        if not self.file("secret_key").exists():
            self.write("secret_key", secrets.token_urlsafe(64))

    @property
    def server_sockets(self) -> Path:
        """A 0700 folder of the servers' account."""
        return self.sockets / "servers"

    @property
    def model_sockets(self) -> Path:
        """A 0700 folder of ours."""
        return self.sockets / "models"

    def _find_servers(self) -> tuple[Account, Path]:
        """Whose the servers' data is and where, made on the first start."""
        inside, record = self.file("servers"), self.file("servers.location")
        if record.exists():
            inside = Path(record.read_text().strip())
            if not inside.is_dir():
                raise StackError(
                    f"{record} says that the servers' data is in {inside}, which is missing: "
                    f"bring it back, or remove {self.path} to begin anew."
                )
        if inside.exists():
            return _reachable(inside), inside
        return self._make_servers(inside, record)

    def _make_servers(self, inside: Path, record: Path) -> tuple[Account, Path]:
        account, home = servers_account(), inside
        if not account.is_ours and not account.can_enter(self.path):
            home = _make_elsewhere(self.path)
            record.write_text(f"{home}\n")
        else:
            home.mkdir(mode=0o700)
        account.own(home)
        return account, home

    def _make_sockets(self) -> Path:
        self._remove_old_sockets()
        folder = _short_folder(self.account)
        self.write("sockets.location", f"{folder}\n")
        for name, account in (("servers", self.account), ("models", None)):
            (folder / name).mkdir(mode=0o700)
            if account:
                account.own(folder / name)
        return folder

    def _remove_old_sockets(self) -> None:
        """Remove the sockets that the last run left, if it was killed."""
        record = self.file("sockets.location")
        if not record.exists():
            return
        folder = Path(record.read_text().strip())
        if folder.name.startswith("tenantry-") and folder.is_dir() and folder.lstat().st_uid == os.geteuid():
            shutil.rmtree(folder)
        record.unlink()


def _make_folder(path: Path) -> None:
    """Have a folder; modes of what is there already stay as they are.

    What root makes can be passed through by the servers' account,
    which has a folder of its own in it and can list nothing.
    """
    if path.is_dir():
        return
    try:
        _make_folder(path.parent)
        path.mkdir()
        path.chmod(0o711 if os.geteuid() == 0 else 0o700)
    except OSError as error:
        raise BadStart(f"The data folder {path} cannot be made: {error.strerror}.") from error


def _lock(folder: Path) -> int:
    """Hold the folder's lock until the descriptor is closed, which the kernel does for a killed process."""
    try:
        lock = os.open(folder / "stack.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BadStart(f"The data folder {folder} cannot be used: {error.strerror}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode() or "unknown"
        os.close(lock)
        raise BadStart(
            f"A stack is already running on {folder} (process {holder}): stop it, or choose another folder with VAR=..."
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def _reachable(home: Path) -> Account:
    """The account that owns the servers' data, provided that it still gets there."""
    account = account_of(home.stat().st_uid)
    if account.uid == 0:
        raise StackError(f"{home} belongs to root, as which PostgreSQL does not run.")
    if not account.is_ours and os.geteuid() != 0:
        raise BadStart(f"{home} belongs to {account.name}: run the stack as that user or as root.")
    if not account.can_enter(home):
        raise StackError(
            f"The user {account.name}, who owns {home}, can no longer enter it: a folder above it is closed."
        )
    return account


def _make_elsewhere(var: Path) -> Path:
    """A new folder that any account can reach, named after VAR for whoever meets it."""
    if not ELSEWHERE.exists():
        ELSEWHERE.mkdir(mode=0o711, parents=True)
        ELSEWHERE.chmod(0o711)
    digest = hashlib.sha256(os.fsencode(var)).hexdigest()[:8]
    return Path(tempfile.mkdtemp(prefix=f"{var.name}-{digest}-", dir=ELSEWHERE))


def _short_folder(account: Account) -> Path:
    """A new folder for sockets whose path is short enough, and open to the servers' account."""
    places = [tempfile.gettempdir(), "/tmp", os.environ.get("XDG_RUNTIME_DIR", ""), "/run"]  # noqa: S108 mkdtemp below
    for place in filter(None, places):
        longest = len(os.fsencode(place)) + len("/tenantry-12345678") + LONGEST_SOCKET_NAME
        if (
            longest > LONGEST_SOCKET_PATH
            or not os.access(place, os.W_OK | os.X_OK)
            or not account.can_enter(Path(place))
        ):
            continue
        folder = Path(tempfile.mkdtemp(prefix="tenantry-", dir=place))
        if not account.is_ours:
            folder.chmod(0o711)  # the account passes through to its own folder, and can list nothing
        return folder
    raise BadStart("No folder for the sockets: the path of TMPDIR is too long or closed, and so are the others tried.")
