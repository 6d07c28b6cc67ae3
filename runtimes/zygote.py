"""A warm process: imports the heavy libraries once, never reads a tenant's byte, forks a confined runner on request.

Its children are the model host's own (CLONE_PARENT): they outlive the zygote, end with the host, and the host alone
reaps them. Run as `python -I -B -c …` by `runtimes.zygotes`, with a scrubbed environment.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.metadata
import os
import platform
import random
import signal
import socket
import sys
import sysconfig
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgpack

from runtimes import runner, sandbox, seccomp
from runtimes.errors import ConfinementUnavailable, RuntimeFault, describe, to_message
from runtimes.exercise import exercise
from runtimes.messages import Connection, EndOfStream

MESSAGE_BYTES = 1 << 16
MAX_FDS = 8
CLONE_PARENT = 0x8000
FIRST_FD = 3
OWN_PACKAGE = "runtimes."
LISTENER_FD = 5  # after control and bundle

PRELOAD: Mapping[str, tuple[str, ...]] = {
    "sklearn": (
        "numpy.random", "pandas", "scipy.sparse", "joblib", "cloudpickle", "sklearn.pipeline", "sklearn.compose",
        "sklearn.preprocessing", "sklearn.impute", "sklearn.ensemble", "sklearn.linear_model", "sklearn.tree",
        "sklearn.neighbors", "sklearn.svm", "sklearn.neural_network", "sklearn.naive_bayes", "sklearn.cluster",
        "sklearn.decomposition", "sklearn.feature_selection", "sklearn.feature_extraction.text", "sklearn.metrics",
        "sklearn.model_selection", "sklearn.calibration", "onnx", "onnx.checker", "onnxruntime",
        "runtimes.formats.scikit_learn", "runtimes.formats.onnx_graph", "runtimes.formats.skops_file",
        "runtimes.fitting", "picklescan.scanner",
    ),
    "torch": (
        "numpy.random", "torch", "torch.nn", "torch.jit", "runtimes.formats.pytorch", "runtimes.formats.torch_export",
    ),
    "onnx": ("numpy.random", "onnx", "onnx.checker", "onnxruntime", "runtimes.formats.onnx_graph"),
    "pages": (
        "PIL.Image", "PIL.ImageDraw", "PIL.ImageFont", "PIL.ImageOps", "PIL.PngImagePlugin", "PIL.JpegImagePlugin",
        "PIL.TiffImagePlugin", "PIL.WebPImagePlugin", "pypdfium2", "runtimes.page_rendering",
    ),
}  # fmt: skip
# of declared sets alone: what of it is there is imported
DECLARED_PRELOAD = (
    "detectron2.config", "detectron2.checkpoint", "detectron2.data.transforms", "detectron2.modeling",
    "runtimes.formats.detectron2_model",
)  # fmt: skip
# what a library would import along, at twice the memory and the time (skops looks through all of scikit-learn)
LEFT_OUT: Mapping[str, tuple[str, ...]] = {
    "sklearn": ("torch",),
    "torch": (),
    "onnx": ("torch",),
    "pages": ("torch",),
}
DISTRIBUTIONS: Mapping[str, tuple[str, ...]] = {
    "sklearn": ("numpy", "scipy", "scikit-learn", "pandas", "joblib", "cloudpickle", "skops", "onnx", "onnxruntime"),
    "torch": ("numpy", "torch"),
    "onnx": ("numpy", "onnx", "onnxruntime"),
    "pages": ("numpy", "pillow", "pypdfium2"),
    "detectron2": ("numpy", "torch", "torchvision", "detectron2"),
}


def main(library_set: str, fd: int) -> None:
    """Warm up, report the versions of the libraries, and fork until the host's end of the socket closes."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=fd)
    host_pid = os.getppid()
    _forget_project_folders()
    try:
        _preload(library_set)
    except ModuleNotFoundError as error:
        channel.send(msgpack.packb({"missing": str(error.name)}))
        os._exit(1)
    except Exception as error:
        channel.send(msgpack.packb({"broken": describe(error)}))
        os._exit(1)
    exercise()
    _prepare_confinement()
    gc.collect()
    gc.freeze()  # what is loaded now stays shared with every child: the collector never writes into it
    with suppress(BrokenPipeError):  # a host that has ended meanwhile is noticed below
        channel.send(msgpack.packb({"libraries": _libraries(library_set)}))
    while True:
        data, fds, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, MAX_FDS)
        if not data:
            os._exit(0)
        pid = _clone_for_host()
        if pid == 0:
            channel.close()
            _become_runner(msgpack.unpackb(data), fds, host_pid)
        for received in fds:
            os.close(received)
        channel.send(msgpack.packb({"pid": pid}))


def _prepare_confinement() -> None:
    """Work out once what every child needs to confine itself."""
    sandbox.readable_paths()
    for listener_fd in (None, LISTENER_FD):
        seccomp.compiled(listener_fd)


class _Absent:
    """An importer for which some packages do not exist."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        self._packages = packages

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Nothing, or an ImportError for an absent package."""
        if name.partition(".")[0] in self._packages:
            raise ModuleNotFoundError(f"{name} is left out of this zygote", name=name)


def _preload(library_set: str) -> None:
    if library_set not in PRELOAD:
        _preload_what_is_there()
        return
    absent = _Absent(LEFT_OUT[library_set])
    sys.meta_path.insert(0, absent)
    try:
        for module in PRELOAD[library_set]:
            importlib.import_module(module)
    finally:
        sys.meta_path.remove(absent)


def _preload_what_is_there() -> None:
    """Import what a declared set holds of all that any set is known to hold; a version may lack a module."""
    known = [module for modules in PRELOAD.values() for module in modules]
    for module in dict.fromkeys([*known, *DECLARED_PRELOAD]):
        # an adapter may want more of a library than an old version has; a library that is there must work
        with suppress(Exception if module.startswith(OWN_PACKAGE) else ModuleNotFoundError):
            importlib.import_module(module)


def _forget_project_folders() -> None:
    """Leave only the interpreter's own folders importable: artifacts have no business with the project's modules."""
    endings = ("site-packages", "dist-packages", "lib-dynload")
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    sys.path[:] = [path for path in sys.path if path in standard or path.endswith(endings)]
    sys.path_importer_cache.clear()


def _libraries(library_set: str) -> dict[str, str]:
    versions = {"python": platform.python_version()}
    known = DISTRIBUTIONS.get(library_set) or tuple(name for names in DISTRIBUTIONS.values() for name in names)
    for name in dict.fromkeys(known):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _clone_for_host() -> int:
    """Fork a child whose parent is the host; 0 in the child.

    os.fork cannot do that. The call is made with the interpreter's own preparations round it and the GIL held; the
    C library's fork handlers are skipped, which is safe as this process has one thread.
    """
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid = int(ctypes.PyDLL(None).syscall(seccomp.syscall_number("clone"), CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0))
    if pid == 0:
        python.PyOS_AfterFork_Child()
    else:
        python.PyOS_AfterFork_Parent()
    return pid


def _become_runner(order: Mapping[str, Any], fds: list[int], host_pid: int) -> None:
    """Confine this child as ordered and serve; never returns."""
    try:
        places = _arrange(order["fds"], fds)
        control = Connection(places["control"], runner.CAPS)
        _hand_over_memory_map(places["control"])
        plan = sandbox.Plan(
            uid=order["uid"],
            host_pid=host_pid,
            memory_bytes=order["memory_bytes"],
            cpu_seconds=order["cpu_seconds"],
            threads=order["threads"],
            keep_fds=tuple(places.values()),
            listener_fd=places.get("listener"),
        )
        _enter(plan, control, confined=order["confined"])
        _silence()
        _reseed()
        runner.run(places, control)
    except EndOfStream:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _enter(plan: sandbox.Plan, control: Connection, *, confined: bool) -> None:
    try:
        if confined:
            sandbox.confine(plan)
        else:
            sandbox.isolate(plan)
    except (RuntimeFault, OSError) as error:
        fault = error if isinstance(error, RuntimeFault) else ConfinementUnavailable(f"Confining failed: {error}.")
        control.send({"ready": False, "fault": to_message(fault)})
        os._exit(1)
    control.send({"ready": True})


def _arrange(names: list[str], fds: list[int]) -> dict[str, int]:
    """The descriptors at fixed numbers from 3 on, each under its name."""
    high = [os.dup(fd) for fd in fds]  # dup first: a target number may be taken by another of them
    while min(high, default=1000) < FIRST_FD + len(names):
        high = [os.dup(fd) for fd in high]
    return {name: os.dup2(fd, number) for number, (name, fd) in enumerate(zip(names, high, strict=True), FIRST_FD)}


def _hand_over_memory_map(control_fd: int) -> None:
    """Give the host a descriptor of this process's own memory account; only the process itself may always open it."""
    fd = os.open("/proc/self/smaps_rollup", os.O_RDONLY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=os.dup(control_fd)) as channel:
        socket.send_fds(channel, [b"m"], [fd])
    os.close(fd)


def _silence() -> None:
    """Point the standard streams at /dev/null: what an artifact prints must reach nobody's log."""
    fd = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(fd, standard)
    os.close(fd)


def _reseed() -> None:
    """Make this child's random numbers its own: a fork copies the state of every generator."""
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].seed()
