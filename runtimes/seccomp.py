"""The system calls that a runner may make; every other call fails with EPERM, and a plainly hostile one kills."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
from collections.abc import Mapping
from typing import Any

import pyseccomp  # importing it runs ldconfig, which works only before Landlock

from runtimes.errors import ConfinementUnavailable

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter
OWN_PID = 0x6B1D_0F5E  # above any real process id; replaced by one's own when the filter is installed

ALLOWED = """
read readv pread64 preadv preadv2 write writev lseek close open openat openat2 fstat stat lstat newfstatat statx
access faccessat faccessat2 getdents64 getcwd readlink readlinkat statfs fstatfs dup dup2 dup3 pipe poll ppoll select
pselect6 eventfd2 epoll_create1 epoll_ctl epoll_wait epoll_pwait munmap mremap mprotect brk msync mbind get_mempolicy
set_mempolicy membarrier futex_waitv set_robust_list rseq sched_yield sched_get_priority_max sched_get_priority_min
getcpu rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack
restart_syscall exit exit_group set_tid_address arch_prctl nanosleep gettimeofday time times getrusage getpid gettid
getppid getuid geteuid getgid getegid getpgrp getresuid getresgid getgroups getitimer setitimer uname sysinfo
getrandom getrlimit umask
"""

KILLING = """
execve execveat ptrace process_vm_readv process_vm_writev process_madvise pidfd_open pidfd_getfd pidfd_send_signal
kcmp bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register mount umount2 pivot_root chroot
unshare setns fsopen fsmount move_mount open_tree mount_setattr keyctl add_key request_key init_module finit_module
delete_module kexec_load open_by_handle_at name_to_handle_at memfd_create memfd_secret setuid setgid setreuid setregid
setresuid setresgid setgroups capset personality quotactl reboot swapon swapoff acct sendmsg sendmmsg recvmsg recvmmsg
"""

# a thread shares all that threads share: with a table of descriptors of its own it would have as many more
CLONE_OF_THREADS = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000  # VM, FS, FILES, SIGHAND, THREAD
CLONE_NAMESPACES = 0x7E020000 | 0x80

MAP_SHARED, MAP_ANONYMOUS, MAP_HUGETLB = 0x1, 0x20, 0x40000
HARMFUL_TO_SHARERS = os.O_ASYNC | os.O_DIRECT | os.O_NOATIME
O_NOTIFICATION_PIPE = 0x80
FUTEX_FLAGS = 0x80 | 0x100  # PRIVATE, CLOCK_REALTIME
FUTEX_CALLS = (0, 1, 3, 4, 5, 9, 10)
OWN_CLOCKS = (0, 1, 2, 3, 4, 5, 6, 7, 11)

# argument index and the values allowed: no locks, F_SETOWN, F_SETSIG, F_SETPIPE_SZ (F_SETFL is below); terminal
# questions, FIONREAD, FIONBIO, FIONCLEX and FIOCLEX; prctl without PDEATHSIG, DUMPABLE, PTRACER and MEMORY_MERGE;
# madvise without what touches pages of others (MERGEABLE, COLD, PAGEOUT), and fadvise64 without DONTNEED, which
# empties the page cache.
ALLOWED_VALUES: Mapping[str, tuple[int, tuple[int, ...]]] = {
    "fcntl": (1, (0, 1, 2, 3, 1030)),
    "ioctl": (1, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),
    "prctl": (0, (3, 15, 16, 21, 0x53564D41)),
    "madvise": (2, (0, 1, 2, 3, 4, 8, 14, 15, 16, 17, 18, 19, 22, 23)),
    "fadvise64": (3, (0, 1, 2, 3, 5)),
    "sched_getaffinity": (0, (0, OWN_PID)),  # of itself: of another it would tell whether that one lives
    "sched_getparam": (0, (0, OWN_PID)),
    "sched_getscheduler": (0, (0, OWN_PID)),
    "clock_gettime": (0, OWN_CLOCKS),  # another process's clock tells whether it lives, and how much it works
    "clock_getres": (0, OWN_CLOCKS),
    "clock_nanosleep": (0, OWN_CLOCKS),
    "close_range": (2, (0, 4)),  # without UNSHARE, which gives a thread a table of its own
}

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def restrict(listener_fd: int | None) -> None:
    """Install the filter for the process and every thread it starts; it cannot be undone and needs no_new_privs.

    listener_fd: the one descriptor on which accept4 works.
    """
    program = compiled(listener_fd)
    for place in range(0, len(program), INSTRUCTION.size):
        code, if_true, if_false, constant = INSTRUCTION.unpack_from(program, place)
        if constant == OWN_PID:
            program[place : place + INSTRUCTION.size] = INSTRUCTION.pack(code, if_true, if_false, os.getpid())
    buffer = (ctypes.c_char * len(program)).from_buffer(program)
    described = _Program(len(program) // INSTRUCTION.size, ctypes.addressof(buffer))
    if _libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(described), 0, 0) != 0:
        raise ConfinementUnavailable(f"The seccomp filter was refused: {os.strerror(ctypes.get_errno())}.")


def compiled(listener_fd: int | None) -> bytearray:
    """The filter as a BPF program, with OWN_PID in the place of the process's id; built once, for it takes a while."""
    return bytearray(_compiled(listener_fd))


@functools.cache
def _compiled(listener_fd: int | None) -> bytes:
    filter_ = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.EPERM))
    filter_.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)  # the 32-bit and x32 entry points
    for name in ALLOWED.split():
        _add(filter_, pyseccomp.ALLOW, name)
    for name in KILLING.split():
        _add(filter_, pyseccomp.KILL_PROCESS, name)
    for name, (argument, values) in ALLOWED_VALUES.items():
        for value in values:
            _add(filter_, pyseccomp.ALLOW, name, pyseccomp.Arg(argument, pyseccomp.EQ, value))
    _add_narrow_calls(filter_, listener_fd)
    with os.fdopen(os.memfd_create("filter"), "w+b") as file:
        filter_.export_bpf(file)
        file.seek(0)
        program = file.read()
    if all(constant != OWN_PID for *_, constant in INSTRUCTION.iter_unpack(program)):
        raise ConfinementUnavailable("The seccomp filter does not compile to what it should.")
    return program


def _add_narrow_calls(filter_: Any, listener_fd: int | None) -> None:
    """Threads but no processes, signals and affinity of one's own, memory that counts, accepting on one socket."""
    arg, equal, masked = pyseccomp.Arg, pyseccomp.EQ, pyseccomp.MASKED_EQ
    _add(filter_, pyseccomp.ALLOW, "clone", arg(0, masked, CLONE_OF_THREADS | CLONE_NAMESPACES, CLONE_OF_THREADS))
    _add(filter_, pyseccomp.ERRNO(errno.ENOSYS), "clone3")  # its flags cannot be seen; libc falls back to clone
    _add(filter_, pyseccomp.ALLOW, "tgkill", arg(0, equal, OWN_PID))
    _add(filter_, pyseccomp.ALLOW, "sched_setaffinity", arg(0, equal, 0))
    _add(filter_, pyseccomp.ALLOW, "getpriority", arg(0, equal, 0), arg(1, equal, 0))
    _add(filter_, pyseccomp.ALLOW, "prlimit64", arg(0, equal, 0), arg(2, equal, 0))
    # the flags of an open file are shared with whoever has it: the bundle's further runners, and its client
    _add(filter_, pyseccomp.ALLOW, "fcntl", arg(1, equal, 4), arg(2, masked, HARMFUL_TO_SHARERS, 0))
    _add(filter_, pyseccomp.ALLOW, "pipe2", arg(1, masked, O_NOTIFICATION_PIPE, 0))
    # Shared memory without a file lives on while a page of it is mapped: once the rest is unmapped, no limit on address
    # space counts it, and no measure of the process shows it.
    _add(filter_, pyseccomp.ALLOW, "mmap", arg(3, masked, MAP_HUGETLB | MAP_SHARED, 0))
    _add(filter_, pyseccomp.ALLOW, "mmap", arg(3, masked, MAP_HUGETLB | MAP_SHARED | MAP_ANONYMOUS, MAP_SHARED))
    for call in FUTEX_CALLS:  # no locks with inherited priority: the kernel looks for their holder among all processes
        _add(filter_, pyseccomp.ALLOW, "futex", arg(1, masked, 0xFFFFFFFF & ~FUTEX_FLAGS, call))
    if listener_fd is not None:
        _add(filter_, pyseccomp.ALLOW, "accept4", arg(0, equal, listener_fd))


def _add(filter_: Any, action: Any, name: str, *arguments: Any) -> None:
    number = ctypes.c_int(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)).value
    if number >= 0:  # else this architecture has no such call, and the default holds
        filter_.add_rule(action, name, *arguments)


def syscall_number(name: str) -> int:
    """The number of a system call on this architecture."""
    return int(ctypes.c_int(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)).value)
