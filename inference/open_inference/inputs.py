"""A request's tensors, checked against a model's signature and turned into the arrays that its runner takes."""

import math
from collections.abc import Sequence

import numpy as np

from common.errors import Invalid
from inference.decoding import Decoded, mismatch, rounded
from inference.open_inference import datatypes
from inference.open_inference.requests import InferRequest, Tensor
from runtimes.signature import STRING, Field, Signature

SHOWN_NAMES = 12


def decode(request: InferRequest, signature: Signature) -> Decoded:
    """The batch in a request: one tensor, or a tensor a column, or all columns side by side in one.

    Raises:
        Invalid: `empty_input`, or `signature_mismatch` naming the tensor.
    """
    tensors = request.tensors if request.raw is None else (_raw(request.raw, signature),)
    if signature.layout == "tensor":
        batch = _fitted(_by_name(tensors, signature)[signature.inputs[0].name], signature.inputs[0])
        decoded = Decoded(batch, len(batch))
    else:
        decoded = _columns(tensors, signature)
    if decoded.row_count == 0:
        raise Invalid("There is no row to predict.", code="empty_input")
    return decoded


def _raw(data: memoryview, signature: Signature) -> Tensor:
    """The bytes of a model's one input; its rows are as many as there are bytes for."""
    field = signature.inputs[0]
    if len(signature.inputs) > 1 or -1 in field.shape[1:]:
        raise mismatch("Only a model with one input, whose rows are all of one shape, takes bytes without a header.")
    if field.dtype == STRING:
        return Tensor(field.name, np.array([_whole_text(data)], dtype=object).reshape((1,) * len(field.shape)))
    row_bytes = math.prod(field.shape[1:]) * np.dtype(field.dtype).itemsize
    if data.nbytes % row_bytes:
        raise mismatch(f"A row of this model has {row_bytes} bytes; {data.nbytes} are no whole number of rows.")
    count = data.nbytes // np.dtype(field.dtype).itemsize
    values = datatypes.from_bytes(data, datatypes.datatype_of(field.dtype), count, field.name)
    return Tensor(field.name, values.reshape(-1, *field.shape[1:]))


def _whole_text(data: memoryview) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise mismatch("The body is not UTF-8, which is all that models take here.") from error


def _by_name(tensors: Sequence[Tensor], signature: Signature) -> dict[str, Tensor]:
    given = {tensor.name: tensor for tensor in tensors}
    wanted = [field.name for field in signature.inputs]
    if len(given) != len(tensors):
        raise mismatch("Two inputs have the same name.")
    if missing := [name for name in wanted if name not in given]:
        raise mismatch(f"Missing: {_names(missing)}. The model takes {_names(wanted)}.")
    if unknown := given.keys() - set(wanted):
        raise mismatch(f"Unknown: {_names(sorted(unknown))}. The model takes {_names(wanted)}.")
    return given


def _columns(tensors: Sequence[Tensor], signature: Signature) -> Decoded:
    fields = signature.inputs
    if len(tensors) == 1 and tensors[0].values.ndim == 2 and tensors[0].values.shape[1] == len(fields) > 1:
        tensors = [Tensor(field.name, tensors[0].values[:, place]) for place, field in enumerate(fields)]
    given = _by_name(tensors, signature)
    batch = {field.name: _fitted(_column(given[field.name]), field) for field in fields}
    lengths = {len(values) for values in batch.values()}
    if len(lengths) > 1:
        raise mismatch("The columns are not all of one length.")
    return Decoded(batch, lengths.pop())


def _column(tensor: Tensor) -> Tensor:
    """A column as (n,): clients send it as (n, 1), too."""
    is_table = tensor.values.ndim == 2 and tensor.values.shape[1] == 1
    return Tensor(tensor.name, tensor.values[:, 0]) if is_table else tensor


def _fitted(tensor: Tensor, field: Field) -> np.ndarray:
    """The tensor's values in the field's shape and dtype."""
    values, shape = tensor.values, tensor.values.shape
    if values.ndim != len(field.shape) or any(
        wanted not in (-1, found) for wanted, found in zip(field.shape[1:], shape[1:], strict=True)
    ):
        raise mismatch(f"'{tensor.name}' has the shape {list(shape)}, but this model takes {list(field.shape)}.")
    if (values.dtype.kind == "O") != (field.dtype == STRING):
        found, wanted = datatypes.datatype_of(values.dtype), datatypes.datatype_of(field.dtype)
        raise mismatch(f"'{tensor.name}' is {found}, but this model takes {wanted}.")
    if not field.nullable and _has_missing(values):
        raise mismatch(f"'{tensor.name}' holds a missing value, which this model does not take.")
    return values if field.dtype == STRING else _converted(values, np.dtype(field.dtype), tensor.name)


def _has_missing(values: np.ndarray) -> bool:
    if values.dtype.kind == "O":
        return None in values.ravel().tolist()
    return values.dtype.kind == "f" and bool(np.isnan(values).any())


def _converted(values: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    """The numbers as this dtype; none is changed but by rounding among floats."""
    if values.dtype == dtype:
        return values
    try:
        if dtype.kind == "f":
            return rounded(values, dtype)
        with np.errstate(invalid="ignore"):
            converted = values.astype(dtype)
        if np.array_equal(converted, values):
            return converted
    except OverflowError:
        pass
    raise mismatch(f"A value of '{name}' does not fit into {datatypes.datatype_of(dtype)}, which this model takes.")


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name[:60]}'" for name in names[:SHOWN_NAMES])
    return shown + (f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else "")
