"""What a library's compiler offers: ways to make a graph, to be tried in turn."""

from __future__ import annotations

from collections.abc import Callable

from onnx import ModelProto

from runtimes.formats.compiled import Plan


class NotCompilable(Exception):
    """There is no conversion; the message says of what, in a sentence without its full stop."""


Attempt = Callable[[], tuple[ModelProto, Plan]]
