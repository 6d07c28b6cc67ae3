"""The operating system's account that the embedded servers run under."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from tenantry.stack.errors import BadStart

# Accounts of every Debian that own nothing and run nothing today. `nobody` comes last: much else runs as nobody.
SYSTEM_ACCOUNTS = ("news", "uucp", "nobody")


class Identity(TypedDict, total=False):
    """The arguments by which subprocess changes the user."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Account:
    """A user of the machine that may run the servers."""

    name: str
    uid: int
    gid: int

    @property
    def is_ours(self) -> bool:
        """Whether it is the user that this process runs as."""
        return self.uid == os.geteuid()

    @property
    def identity(self) -> Identity:
        """What subprocess needs to run a command as this user."""
        return {} if self.is_ours else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def can_enter(self, folder: Path) -> bool:
        """Whether this user can reach what lies in the folder; the kernel is asked, so access lists count too."""
        return self.can_run("test", "-x", str(folder))

    def can_run(self, *command: str) -> bool:
        """Whether the command succeeds as this user."""
        try:
            done = subprocess.run(
                command,
                **self.identity,
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=30,
                check=False,
            )
        except OSError:
            return False
        return done.returncode == 0

    def own(self, folder: Path) -> None:
        """Give this user a folder that the caller has just made."""
        if not self.is_ours:
            os.chown(folder, self.uid, self.gid, follow_symlinks=False)


def servers_account() -> Account:
    """The account for servers of a new data folder: the caller's own, or a system account if that is root.

    PostgreSQL refuses to run as root. The account must have a name, since initdb looks it up.
    """
    if os.geteuid() != 0:
        return account_of(os.geteuid())
    if name := os.environ.get("TENANTRY_SERVERS_USER"):
        return _named(name)
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in SYSTEM_ACCOUNTS:
        if name in known and known[name].pw_uid != 0:
            return Account(name, known[name].pw_uid, known[name].pw_gid)
    raise BadStart("PostgreSQL does not run as root: name an ordinary user in TENANTRY_SERVERS_USER.")


def account_of(uid: int) -> Account:
    """The account with this uid."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise BadStart(
            f"The user id {uid} has no name in /etc/passwd, which PostgreSQL's initdb needs: "
            "run as a named user, or name a PostgreSQL server in DATABASE_URL."
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _named(name: str) -> Account:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise BadStart(f"TENANTRY_SERVERS_USER names {name!r}, which is no user of this machine.") from None
    if entry.pw_uid == 0:
        raise BadStart("TENANTRY_SERVERS_USER must be an ordinary user: PostgreSQL does not run as root.")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
