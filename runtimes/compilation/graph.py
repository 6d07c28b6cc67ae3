"""Writing ONNX nodes for an estimator, in terms of skl2onnx's scope and container."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper
from skl2onnx.common._registration import register_converter, register_shape_calculator
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from skl2onnx.common.utils_classifier import get_label_classes

ML = "ai.onnx.ml"
OPSETS = {"": 21, ML: 3}
CLASSIFIER_OPTIONS = {
    "zipmap": [True, False, "columns"],
    "nocl": [True, False],
    "output_class_labels": [False, True],
    "raw_scores": [True, False],
}


class Graph:
    """The nodes of one estimator: its inputs as one tensor, constants, operators, outputs."""

    def __init__(self, scope: Any, operator: Any, container: Any) -> None:
        self._scope, self._operator, self._container = scope, operator, container
        self.model = operator.raw_operator
        self.is_double = not any(isinstance(entry.type, FloatTensorType) for entry in operator.inputs)
        self.dtype: type[np.floating[Any]] = np.float64 if self.is_double else np.float32

    @property
    def is_text(self) -> bool:
        """Whether the inputs are strings."""
        return isinstance(self._operator.inputs[0].type, StringTensorType)

    def input(self) -> str:
        """The inputs side by side; numbers in the graph's precision."""
        names = [entry.full_name for entry in self._operator.inputs]
        if not self.is_text:
            names = [self._as_number(entry) for entry in self._operator.inputs]
        return names[0] if len(names) == 1 else self.node("Concat", names, axis=1)

    def _as_number(self, entry: Any) -> str:
        wanted = DoubleTensorType if self.is_double else FloatTensorType
        name: str = entry.full_name
        return name if isinstance(entry.type, wanted) else self.cast(name)

    def labels(self) -> list[Any]:
        """The classes as they are asked for: their names, or their numbers from 0 on."""
        classes = np.asarray(get_label_classes(self._scope, self.model))
        return [str(one) if isinstance(one, str) else int(one) for one in classes.tolist()]

    def constant(self, values: Any, dtype: Any = None) -> str:
        """A constant tensor; numbers in the graph's precision unless a dtype is given."""
        name: str = self._scope.get_unique_variable_name("constant")
        tensor = numpy_helper.from_array(np.asarray(values, dtype=dtype or self.dtype), name)
        self._container.initializers.append(tensor)
        return name

    def node(self, kind: str, inputs: str | Sequence[str], *, domain: str = "", **attributes: Any) -> str:
        """The one output of a node."""
        return self.nodes(kind, inputs, 1, domain=domain, **attributes)[0]

    def nodes(
        self, kind: str, inputs: str | Sequence[str], count: int, *, domain: str = "", **attributes: Any
    ) -> list[str]:
        """The outputs of a node with several."""
        given = [inputs] if isinstance(inputs, str) else list(inputs)
        outputs = [self._scope.get_unique_variable_name(kind.lower()) for _ in range(count)]
        name = self._scope.get_unique_operator_name(kind)
        self._container.add_node(
            kind, given, outputs, op_domain=domain, op_version=OPSETS[domain], name=name, **attributes
        )
        return outputs

    def cast(self, name: str, to: int | None = None) -> str:
        """The tensor in another element type: the graph's precision, unless one is given."""
        return self.node("Cast", name, to=to or (TensorProto.DOUBLE if self.is_double else TensorProto.FLOAT))

    def column(self, name: str, place: int) -> str:
        """One column of a table, as a table."""
        return self.node("Gather", [name, self.constant([place], np.int64)], axis=1)

    def give(self, place: int, name: str) -> None:
        """Make this tensor the estimator's output of that place."""
        target = self._operator.outputs[place].full_name
        self._container.add_node("Identity", [name], [target], name=self._scope.get_unique_operator_name("Identity"))


def register(kinds: Sequence[str], convert: Callable[[Graph], None], shape: Any = None, options: Any = None) -> None:
    """Have skl2onnx use this conversion for estimators of these kinds, instead of its own."""

    def converter(scope: Any, operator: Any, container: Any) -> None:
        convert(Graph(scope, operator, container))

    for kind in kinds:
        register_converter(f"Sklearn{kind}", converter, overwrite=True, options=options)
        if shape is not None:
            register_shape_calculator(f"Sklearn{kind}", shape, overwrite=True)


def table_of(operator: Any) -> None:
    """The shape calculator of a transformer: one table of numbers in the graph's precision."""
    is_double = not any(isinstance(entry.type, FloatTensorType) for entry in operator.inputs)
    operator.outputs[0].type = (DoubleTensorType if is_double else FloatTensorType)([None, None])
