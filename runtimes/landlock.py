"""Landlock: which files a process may open, enforced by the kernel (linux/landlock.h)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

from runtimes.errors import ConfinementUnavailable

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
VERSION_FLAG = 1
RULE_PATH_BENEATH = 1
WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
RIGHTS_OF_ABI = {1: 13, 2: 14, 3: 15, 4: 15}
RIGHTS_SINCE_ABI_5 = 16
ABI_WITH_TCP, ABI_WITH_SCOPES, ABI_WITH_QUIET = 4, 6, 7
NO_AUDIT = 1  # else each denied attempt may be a line of the machine's audit log, as many as an artifact likes

_libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("tcp", ctypes.c_uint64), ("scopes", ctypes.c_uint64)]


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("rights", ctypes.c_uint64), ("fd", ctypes.c_int32)]


def abi() -> int:
    """The kernel's Landlock version.

    Raises:
        ConfinementUnavailable: the kernel or the container's seccomp profile has none.
    """
    version = int(_libc.syscall(CREATE_RULESET, None, 0, VERSION_FLAG))
    if version < 1:
        raise ConfinementUnavailable(
            "Landlock is missing, so nothing can be confined (Linux 5.13 or newer is needed, and Docker 23 or newer)."
        )
    return version


def restrict(readable: Iterable[Path]) -> None:
    """Leave the calling thread the right to read below these paths and to write /dev/null, and no other file right.

    A thread's restriction passes to its children only: call it while single-threaded. It cannot be undone, and it
    needs no_new_privs. From ABI 4 on it also forbids TCP, from ABI 6 abstract sockets and signals to the outside.
    """
    version = abi()
    rights = (1 << RIGHTS_OF_ABI.get(version, RIGHTS_SINCE_ABI_5)) - 1
    tcp, scopes = (3 if version >= ABI_WITH_TCP else 0), (3 if version >= ABI_WITH_SCOPES else 0)
    ruleset = _Ruleset(rights, tcp, scopes)
    fd = _checked("create a ruleset", _libc.syscall(CREATE_RULESET, ctypes.byref(ruleset), ctypes.sizeof(ruleset), 0))
    try:
        for path in readable:
            _allow(fd, path, READ_FILE | READ_DIR)
        _allow(fd, Path("/dev/null"), READ_FILE | WRITE_FILE)
        flags = NO_AUDIT if version >= ABI_WITH_QUIET else 0
        _checked("restrict the process", _libc.syscall(RESTRICT_SELF, fd, flags))
    finally:
        os.close(fd)


def _allow(ruleset_fd: int, path: Path, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there, or out of reach, needs no rule
    try:
        rule = _PathRule(rights if path.is_dir() else rights & ~READ_DIR, fd)
        _checked(f"allow {path}", _libc.syscall(ADD_RULE, ruleset_fd, RULE_PATH_BENEATH, ctypes.byref(rule), 0))
    finally:
        os.close(fd)


def _checked(what: str, result: int) -> int:
    if result < 0:
        raise ConfinementUnavailable(f"Landlock could not {what}: {os.strerror(ctypes.get_errno())}.")
    return int(result)
