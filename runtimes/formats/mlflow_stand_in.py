"""As much of `mlflow` as an unpickled Python model asks for, where a library set does not hold MLflow itself.

MLflow pickles a Python model's class by value, over its own `PythonModel` and with its own wrappers round `predict`;
these names are all that such a file imports. Type hints are not enforced: the signature is, before the model is asked.
"""

from __future__ import annotations

import pickle
import sys
from abc import ABCMeta
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple


class PythonModel(metaclass=ABCMeta):  # noqa: B024 (a class derived from it is unpickled with this metaclass)
    """What an author's model derives from."""

    def load_context(self, context: Any) -> None:  # noqa: B027
        """Overridden by a model that needs its artifacts."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        """Overridden by every model; not abstract, as a class is unpickled before its methods are."""
        raise NotImplementedError


class PythonModelContext:
    """The paths of a model's artifacts, and its configuration."""

    def __init__(self, artifacts: Mapping[str, str], model_config: Mapping[str, Any] | None) -> None:
        self.artifacts, self.model_config = artifacts, model_config


class FunctionPythonModel(PythonModel):
    """A function that was logged as a model."""

    func: Callable[..., Any]

    def predict(self, model_input: Any, params: Any = None) -> Any:  # type: ignore[override]
        """What the function returns."""
        return self.func(model_input)


class TypeHints:
    """The hints of a model's input and output."""

    def __init__(self, input_: Any = None, output: Any = None) -> None:
        self.input, self.output = input_, output


class FuncInfo(NamedTuple):
    """What a wrapper round `predict` remembers of its type hint."""

    input_type_hint: Any
    input_param_name: str


class MlflowException(Exception):
    """What MLflow raises."""


def unchanged(args: Any, kwargs: Any, *hints: Any) -> tuple[Any, Any]:
    """The arguments of a wrapped `predict` as they are."""
    return args, kwargs


def itself(function: Any) -> Any:
    """A decorated function, undecorated."""
    return function


class _Chosen:
    """The model that a module chose by `mlflow.models.set_model`."""

    model: Any = None


def choose(model: Any) -> None:
    """Remember the model of a file that is a model's code."""
    _Chosen.model = model


def chosen() -> Any:
    """The model that was chosen last."""
    return _Chosen.model


NAMES: Mapping[str, Mapping[str, Any]] = {
    "mlflow": {"MlflowException": MlflowException, "__version__": "0"},
    "mlflow.exceptions": {"MlflowException": MlflowException},
    "mlflow.models": {"set_model": choose},
    "mlflow.models.model": {},
    "mlflow.models.signature": {"_TypeHints": TypeHints},
    "mlflow.pyfunc": {"PythonModel": PythonModel, "PythonModelContext": PythonModelContext},
    "mlflow.pyfunc.model": {
        "PythonModel": PythonModel,
        "PythonModelContext": PythonModelContext,
        "_FunctionPythonModel": FunctionPythonModel,
    },
    "mlflow.pyfunc.utils": {"pyfunc": itself},
    "mlflow.pyfunc.utils.data_validation": {
        "FuncInfo": FuncInfo,
        "pyfunc": itself,
        "_validate_model_input": unchanged,
    },
    "mlflow.pytorch": {},
    "mlflow.pytorch.pickle_module": {name: getattr(pickle, name) for name in ("Unpickler", "Pickler", "load", "loads")},
}


def install() -> None:
    """Put these names in MLflow's place for the rest of this process."""
    for name, content in NAMES.items():
        module = ModuleType(name)
        module.__path__ = []  # each may be a package
        module.__dict__.update(content)
        sys.modules[name] = module
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)
