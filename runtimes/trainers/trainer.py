"""What a trainer is: declared parameters, and a fit that makes a model of a table."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, field_validator

from runtimes.signature import Signature

MOST_WHOLE = 2**53 - 1  # what every reader of JSON takes for the same number
Kind = Literal["classification", "regression", "detection"]


class TrainerParams(BaseModel):
    """Parameters of a trainer; a name that it does not know is refused, and so is a whole number that JSON may bend."""

    model_config = ConfigDict(extra="forbid")

    @field_validator("*")
    @classmethod
    def _bounded(cls, value: Any) -> Any:
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, int) and abs(one) > MOST_WHOLE:
                raise ValueError(f"a whole number is between {-MOST_WHOLE} and {MOST_WHOLE}")
        return value


class Fitted(Protocol):
    """A fitted model: it predicts frames like the one it was fitted on, and writes itself as an artifact.

    file_name, format: of the artifact. columns: those that it looks at, in its inputs' order.
    """

    file_name: str
    format: str
    columns: list[str]

    def predict(self, features: Any) -> Any:
        """One number or class a row of the frame."""

    def predict_proba(self, features: Any) -> Any:
        """A classifier's probabilities, (rows, classes), in the order of `classes_`."""

    def signature(self, features: Any) -> Signature:
        """What its artifact takes and gives; features: some rows to try it on."""

    def declared(self) -> Mapping[str, Any]:
        """What its version's metadata must say beside the signature, such as an architecture."""

    def save(self, file: Any) -> None:
        """Write the artifact; file: has `write` and nothing else."""


class Watch(Protocol):
    """Hears how far a fit is, between 0 and 1, with the metrics of an epoch or the model as it is now."""

    def __call__(
        self, fraction: float, *, model: Fitted | None = None, metrics: Mapping[str, float] | None = None
    ) -> None: ...


class Trainer(ABC):
    """Fits one kind of model.

    Params declares the parameters once: for validation, for the form and for the API's schema.
    library_set: whose runner it fits in. requires: modules that must be installed for it to be offered.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    task: ClassVar[Kind]
    Params: ClassVar[type[TrainerParams]]
    library_set: ClassVar[str] = "sklearn"
    requires: ClassVar[tuple[str, ...]] = ()

    def __init__(self, params: TrainerParams) -> None:
        self.params = params

    @abstractmethod
    def fit(self, features: Any, target: Any, watch: Watch) -> Fitted:
        """The fitted model; only a runner calls this, for it imports heavy libraries.

        features: a frame of float64, bool and object columns, the last ones of str with NaN for what is missing.
        target: a series of numbers or of str.

        Raises:
            ValueError: these rows, or these parameters with them, cannot be fitted; the text says why.
        """

    @classmethod
    def is_offered(cls) -> bool:
        """Whether what it needs is installed here."""
        return all(_is_installed(module) for module in cls.requires)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # a zygote says so of what it leaves out
        return False
