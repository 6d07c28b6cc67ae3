"""Files that run code when they are loaded, and models that run code when they predict."""

from __future__ import annotations

import pickle
import textwrap
from typing import Any

import cloudpickle

SUCCEEDED = "the attack succeeded"

PRELUDE = """
import ctypes, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
result = None

def call(number, *arguments):
    value = libc.syscall(number, *arguments)
    if value < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return value
"""


class Call:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self._call


def running(code: str) -> bytes:
    """A pickle that runs the code when it is loaded, and then tells its `result` by an exception."""
    return pickle.dumps(Call(exec, complete(code), {}))


def complete(code: str) -> str:
    """The code with what it may use before it, and an exception that tells its `result` behind it."""
    end = f"raise ValueError('{SUCCEEDED}: ' + str(result))"
    return "\n".join([PRELUDE, textwrap.dedent(code), end])


def predicting(code: str) -> bytes:
    """A cloudpickled model of two columns whose predict runs the code, which sees `rows` and may return."""
    space: dict[str, Any] = {"__name__": "__main__"}
    body = textwrap.indent(PRELUDE + textwrap.dedent(code), "        ")
    exec(f"class Hostile:\n    n_features_in_ = 2\n    def predict(self, rows):\n{body}\n", space)
    return bytes(cloudpickle.dumps(space["Hostile"]()))
