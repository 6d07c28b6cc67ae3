"""A tenant's own training program, inside its runner: `train.py` and what lies beside it, and nothing else.

`train.py` defines `train(data, target, params, report)`: `data` is a pandas frame with the target among its columns,
`params` the run's parameters, checked against `params.schema.json` where the program has one. It calls
`report(percent, stage="", metrics=None)` as it likes, and what it prints goes to the run's log. It returns the model,
or a map with `model` (or `artifact`, bytes, with `file_name`) and, if it likes, `metrics`.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import io
import json
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from types import ModuleType
from typing import Any

import cloudpickle
import pandas as pd

from runtimes.bundle import Bundle
from runtimes.errors import ModelError, describe, plain
from runtimes.fitting import CHUNK_BYTES
from runtimes.messages import Connection
from runtimes.table_files import table_file

CODE, DATA = "code/", "data"
ENTRY, SCHEMA = "train.py", "params.schema.json"
MOST_LINES, MOST_REPORTS = 3_000, 3_000
LINE_CHARS = 1_000


def fit(order: Mapping[str, Any], channel: Connection, bundle_fd: int) -> dict[str, Any]:
    """The report of the program's fit, its artifact sent on the channel before.

    Raises:
        ModelError: the program or its parameters do not do, or the program raised; the sentence says where in it.
    """
    bundle = Bundle(bundle_fd)
    files = {path.removeprefix(CODE): path for path in bundle.paths() if path.startswith(CODE)}
    params = dict(order["params"])
    _check_params(bundle, files, params)
    channel.send({"percent": 0.0, "stage": "reading"})
    frame = table_file(bundle.open(DATA), str(order["format"])).frame()
    if str(order["target"]) not in frame.columns:
        raise ModelError(f"There is no column {plain(order['target'], 80)!r}.", "invalid_dataset")
    log = _Log(channel)
    with redirect_stdout(log), redirect_stderr(log):
        made = _train(bundle, files, frame, str(order["target"]), params, channel)
        log.flush()
    return _keep(made, channel)


def _check_params(bundle: Bundle, files: Mapping[str, str], params: dict[str, Any]) -> None:
    if SCHEMA not in files:
        return
    import jsonschema  # only where a program has a schema

    try:
        schema = json.loads(bundle.read(files[SCHEMA]))
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(params, schema, cls=jsonschema.Draft202012Validator)
    except jsonschema.ValidationError as error:
        where = ".".join(["params", *(str(part) for part in error.absolute_path)])
        raise ModelError(plain(f"{where}: {error.message}", 300), "invalid_parameter") from error
    except (jsonschema.SchemaError, ValueError) as error:
        raise ModelError(f"{SCHEMA} is no JSON schema: {plain(error, 200)}", "invalid_code") from error
    for name, described in (schema.get("properties") or {}).items():
        if isinstance(described, dict) and "default" in described:
            params.setdefault(name, described["default"])


def _train(
    bundle: Bundle,
    files: Mapping[str, str],
    frame: pd.DataFrame,
    target: str,
    params: dict[str, Any],
    channel: Connection,
) -> Any:
    sys.meta_path.insert(0, _Modules(bundle, files))
    try:
        program = importlib.import_module("train")
        train = getattr(program, "train", None)
        if not callable(train):
            raise ModelError(f"{ENTRY} defines no function `train(data, target, params, report)`.", "invalid_code")
        channel.send({"percent": 5.0, "stage": "fitting"})
        return train(frame, target, params, _Reports(channel))
    except ModelError:
        raise
    except MemoryError:
        raise
    except BaseException as error:  # the program may raise anything, SystemExit included
        raise ModelError(f"{_place(error, files)}{describe(error, 300)}", "fit_failed") from error


def _place(error: BaseException, files: Mapping[str, str]) -> str:
    """Where in the program it happened."""
    place, trace = "", error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name in files:
            place = f"{name}, line {trace.tb_lineno}: "
        trace = trace.tb_next
    return place


class _Modules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the program's own modules out of its bundle."""

    def __init__(self, bundle: Bundle, files: Mapping[str, str]) -> None:
        self._bundle, self._files = bundle, files

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        """A module or a package of the program, if it has one of this name."""
        place = name.replace(".", "/")
        for file, is_package in ((f"{place}/__init__.py", True), (f"{place}.py", False)):
            if file in self._files:
                return importlib.util.spec_from_loader(name, self, origin=file, is_package=is_package)
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code; what it defines is pickled by value, as nobody else can import it."""
        assert module.__spec__ is not None
        file = str(module.__spec__.origin)
        source = self._bundle.read(self._files[file])
        cloudpickle.register_pickle_by_value(module)
        exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 (what this runner is for)


class _Reports:
    """What the program calls to say how far it is."""

    def __init__(self, channel: Connection) -> None:
        self._channel, self._left = channel, MOST_REPORTS

    def __call__(self, percent: float, stage: str = "fitting", metrics: Mapping[str, float] | None = None) -> None:
        self._left -= 1
        if self._left >= 0:
            told = {str(name): float(value) for name, value in (metrics or {}).items()}
            self._channel.send({"percent": float(percent) * 0.9, "stage": plain(stage, 80), "metrics": told})


class _Log(io.TextIOBase):
    """Sends what is printed, a line at a time, up to a bound."""

    def __init__(self, channel: Connection) -> None:
        self._channel, self._line, self._left = channel, "", MOST_LINES

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Send the lines that are whole now."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._send(line)
        self._line = self._line[:LINE_CHARS]
        return len(text)

    def flush(self) -> None:
        """Send what is left of a line."""
        if self._line:
            self._send(self._line)
            self._line = ""

    def _send(self, line: str) -> None:
        self._left -= 1
        if self._left >= 0:
            self._channel.send({"log": plain(line, LINE_CHARS)})


def _keep(made: Any, channel: Connection) -> dict[str, Any]:
    told = made if isinstance(made, Mapping) and {"model", "artifact"} & made.keys() else {"model": made}
    artifact = told.get("artifact")
    if artifact is None:
        if told["model"] is None:
            raise ModelError(f"{ENTRY}'s `train` returned nothing; return the model.", "invalid_code")
        artifact = cloudpickle.dumps(told["model"], protocol=5)
    if not isinstance(artifact, bytes):
        raise ModelError("The `artifact` is bytes, such as those of a file.", "invalid_code")
    for start in range(0, len(artifact), CHUNK_BYTES):
        channel.send({"artifact": True}, [memoryview(artifact)[start : start + CHUNK_BYTES]])
    return {
        "format": "unknown",
        "task": "other",
        "signature": None,
        "input_example": None,
        "artifact_name": plain(told.get("file_name") or "model.pkl", 80),
        "metrics": {},
        "claimed": {str(name): float(value) for name, value in (told.get("metrics") or {}).items()},
    }
