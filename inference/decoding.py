"""A request's body, checked against a model's signature and turned into the arrays that its runner takes."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

import numpy as np

from common.errors import Invalid, Malformed
from runtimes.signature import STRING, Batch, Field, Signature

FORMS = ("instances", "inputs", "dataframe_split", "dataframe_records")
NUMBERS = frozenset((int, float, bool))
# The codes of `struct`, which takes numbers four times as fast as numpy does, and nothing that is none or too large.
CODES = {"float16": "e", "float32": "f", "float64": "d"} | {
    f"{sign}int{size * 8}": code.upper() if sign else code
    for sign in ("", "u")
    for size, code in ((1, "b"), (2, "h"), (4, "i"), (8, "q"))
}
NONE = type(None)
KIND_IN_WORDS = {str: "a string", dict: "an object", list: "a list", NONE: "null", bool: "a boolean"}


@dataclass(frozen=True)
class Decoded:
    """A checked batch. row_count: at least 1."""

    batch: Batch
    row_count: int


def decode(body: Mapping[str, Any], signature: Signature) -> Decoded:
    """The rows of a predict body: exactly one of `instances`, `inputs`, `dataframe_split`, `dataframe_records`.

    Raises:
        Malformed: none or several of the four, or one that is not of its form.
        Invalid: `empty_input`, or `signature_mismatch` naming the column and the row.
    """
    form, rows = _only_form(body)
    decoded = _tensor(form, rows, signature) if signature.layout == "tensor" else _columns(form, rows, signature)
    if decoded.row_count == 0:
        raise Invalid("There is no row to predict.", code="empty_input")
    return decoded


def _only_form(body: Mapping[str, Any]) -> tuple[str, Any]:
    given = [form for form in FORMS if form in body]
    if len(given) != 1:
        found = " and ".join(given) if given else "none"
        raise Malformed(f"Send exactly one of {', '.join(FORMS)}; found {found}.", code="ambiguous_body")
    return given[0], body[given[0]]


# --- one array -------------------------------------------------------------------------------------------------------


def _tensor(form: str, rows: Any, signature: Signature) -> Decoded:
    field = signature.inputs[0]
    if form == "dataframe_records":
        raise mismatch(f"This model takes unnamed values in the shape {list(field.shape)}: send them as instances.")
    if form == "dataframe_split":
        rows = _split(rows)[1]
    elif form == "inputs" and isinstance(rows, Mapping):
        rows = _sole_input(rows, field)
    array = _array(rows, field)
    return Decoded(array, len(array))


def _sole_input(inputs: Mapping[str, Any], field: Field) -> Any:
    if set(inputs) != {field.name}:
        raise mismatch(f"This model has one input, '{field.name}'; found {_names(inputs)}.")
    return inputs[field.name]


def _array(rows: Any, field: Field) -> np.ndarray:
    """The rows as one array of the field's dtype and shape."""
    if not isinstance(rows, list):
        raise Malformed("Rows are a list.", code="malformed")
    if not rows:
        return np.empty((0,))
    if (table := _plain_table(rows, field)) is not None:
        return table
    cells = _rectangle(rows, field)
    if cells.ndim != len(field.shape) or any(
        wanted not in (-1, found) for wanted, found in zip(field.shape[1:], cells.shape[1:], strict=True)
    ):
        raise mismatch(_shape_sentence(cells.shape, field))
    flat = cells.ravel()
    return _typed(flat.tolist(), field, lambda index: _place(index, cells.shape)).reshape(cells.shape)


def _plain_table(rows: list[Any], field: Field) -> np.ndarray | None:
    """Rows that are lists of plain numbers, as many as the model takes; None if they have to be looked at closer."""
    if len(field.shape) != 2 or set(map(type, rows)) != {list} or len(widths := set(map(len, rows))) != 1:
        return None
    width = widths.pop()
    if field.shape[1] not in (-1, width):
        return None
    values = _plain_numbers(list(chain.from_iterable(rows)), field.dtype)
    return None if values is None else values.reshape(len(rows), width)


def _rectangle(rows: list[Any], field: Field) -> np.ndarray:
    """The nested lists as an object array: no string is copied, so that one long string cannot fill the memory."""
    depth = len(field.shape)
    for index, row in enumerate(rows):
        if isinstance(row, list) != (depth > 1):
            wanted = "a list of values" if depth > 1 else "one value"
            raise mismatch(f"Row {index} is {_in_words(row)}, but each row is {wanted}.")
        if depth > 1 and len(row) != len(rows[0]):
            raise mismatch(f"Row {index} has {len(row)} values, but row 0 has {len(rows[0])}.")
    if depth == 2:
        cells = np.empty((len(rows), len(rows[0])), dtype=object)
        cells[:] = rows
        return cells
    try:
        return np.array(rows, dtype=object)
    except ValueError as error:
        raise mismatch("The rows are not all of one shape.") from error


def _shape_sentence(found: tuple[int, ...], field: Field) -> str:
    if len(found) == len(field.shape) == 2:
        return f"Each row has {found[1]} values, but this model takes {field.shape[1]}."
    return f"Each row has the shape {list(found[1:])}, but this model takes {list(field.shape[1:])}."


def _place(index: int, shape: tuple[int, ...]) -> str:
    row, *rest = (int(part) for part in np.unravel_index(index, shape))
    return f"row {row}" + (f", column {', '.join(map(str, rest))}" if rest else "")


# --- named columns ---------------------------------------------------------------------------------------------------


def _columns(form: str, rows: Any, signature: Signature) -> Decoded:
    columns = _by_name(form, rows, [field.name for field in signature.inputs])
    _check_names(columns, signature)
    lengths = set(map(len, columns.values()))
    if len(lengths) > 1:
        raise mismatch("The columns are not all of one length.")
    batch: dict[str, np.ndarray] = {}
    for dtype, fields in groupby(sorted(signature.inputs, key=_dtype), key=_dtype):
        batch |= _of_one_dtype(columns, dtype, list(fields))
    return Decoded({field.name: batch[field.name] for field in signature.inputs}, lengths.pop() if lengths else 0)


def _dtype(field: Field) -> str:
    return field.dtype


def _of_one_dtype(columns: Mapping[str, list[Any]], dtype: str, fields: list[Field]) -> dict[str, np.ndarray]:
    """The columns of these fields, which share a dtype: at once if their values are plain numbers."""
    values = list(chain.from_iterable(columns[field.name] for field in fields))
    if (plain := _plain_numbers(values, dtype)) is not None:
        return {field.name: column for field, column in zip(fields, plain.reshape(len(fields), -1), strict=True)}
    return {
        field.name: _typed(columns[field.name], field, lambda index, name=field.name: f"row {index}, column '{name}'")
        for field in fields
    }


def _by_name(form: str, rows: Any, names: Sequence[str]) -> dict[str, list[Any]]:
    match form, rows:
        case "dataframe_split", _:
            columns, data = _split(rows)
            return _transpose(data, columns if columns is not None else names)
        case "inputs", Mapping():
            if not all(isinstance(values, list) for values in rows.values()):
                raise Malformed("inputs maps each column's name to the list of its values.")
            return {str(name): values for name, values in rows.items()}
        case _, [Mapping(), *_]:
            return _records(rows)
        case _, list():
            return _transpose(rows, names)
        case _:
            raise Malformed(f"{form} is a list of rows.")


def _split(table: Any) -> tuple[list[str] | None, list[Any]]:
    if not isinstance(table, Mapping) or not isinstance(table.get("data"), list):
        raise Malformed('dataframe_split is {"columns": […], "data": [[…], …]}.')
    columns = table.get("columns")
    if columns is not None and not isinstance(columns, list):
        raise Malformed("dataframe_split.columns is a list of names.")
    names = None if columns is None else [str(name) for name in columns]
    if names is not None and len(set(names)) != len(names):
        raise mismatch("dataframe_split.columns names a column twice.")
    return names, table["data"]


def _records(rows: list[Any]) -> dict[str, list[Any]]:
    names = rows[0].keys()
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping) or row.keys() != names:
            raise mismatch(f"Row {index} has other columns than row 0.")
    return {str(name): [row[name] for row in rows] for name in names}


def _transpose(rows: list[Any], names: Sequence[str]) -> dict[str, list[Any]]:
    if set(map(type, rows)) == {list} and set(map(len, rows)) == {len(names)}:
        return {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            found = f"{len(row)} values" if isinstance(row, list) else _in_words(row)
            raise mismatch(f"Row {index} has {found}, but there are {len(names)} columns: {_names(names)}.")
    return {name: [] for name in names}


def _check_names(columns: Mapping[str, Any], signature: Signature) -> None:
    wanted = {field.name for field in signature.inputs}
    if columns.keys() == wanted:
        return
    if missing := wanted - columns.keys():
        raise mismatch(f"Missing: {_names(missing)}. The model takes {_names(f.name for f in signature.inputs)}.")
    if unknown := columns.keys() - wanted:
        raise mismatch(f"Unknown: {_names(unknown)}. The model takes {_names(f.name for f in signature.inputs)}.")


# --- values ----------------------------------------------------------------------------------------------------------


def _typed(values: list[Any], field: Field, place: Any) -> np.ndarray:
    """The values as a one-dimensional array of the field's dtype; missing ones as NaN, or None among strings."""
    if (plain := _plain_numbers(values, field.dtype)) is not None:
        return plain
    allowed: set[type] = {str} if field.dtype == STRING else set(NUMBERS)
    if field.nullable:
        allowed.add(NONE)
    if not set(map(type, values)) <= allowed:
        index = next(index for index, value in enumerate(values) if type(value) not in allowed)
        raise mismatch(f"The value at {place(index)} is {_in_words(values[index])}, but {_expected(field)}.")
    if field.dtype == STRING:
        return np.fromiter(values, dtype=object, count=len(values))
    return _numbers(values, field, place)


def _plain_numbers(values: list[Any], dtype: str) -> np.ndarray | None:
    """Numbers of the kind that the dtype is for; None if one has to be looked at closer, such as 3.0 for an integer."""
    code = CODES.get(dtype)
    if code is None:
        return None
    try:
        packed = struct.pack(f"={len(values)}{code}", *values)
    except (struct.error, OverflowError):
        return None
    return np.frombuffer(packed, dtype)


def rounded(numbers: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Floating numbers in another floating dtype.

    Raises:
        OverflowError: one that is finite would become infinite.
    """
    with np.errstate(over="ignore"):
        values = numbers.astype(dtype, copy=False)
    is_infinite = np.isinf(values)
    if is_infinite.any() and not np.isinf(numbers[is_infinite]).all():
        raise OverflowError
    return values


def _numbers(values: list[Any], field: Field, place: Any) -> np.ndarray:
    dtype = np.dtype(field.dtype)
    try:
        if dtype.kind == "f":
            return rounded(np.array(values, dtype=np.float64), dtype)
        exact = np.array(values, dtype=dtype)
    except (OverflowError, TypeError, ValueError) as error:
        raise mismatch(f"A value of '{field.name}' does not fit into {field.dtype}.") from error
    for index, (value, kept) in enumerate(zip(values, exact.tolist(), strict=True)):
        if value != kept:
            raise mismatch(f"The value at {place(index)} is {value}, but {_expected(field)}.")
    return exact


def _expected(field: Field) -> str:
    kind = np.dtype(field.dtype).kind if field.dtype != STRING else "S"
    words = {"S": "a string", "f": "a number", "b": "true or false"}.get(kind, "a whole number")
    return f"the model takes {words} there" + ("" if not field.nullable else " or null")


def _in_words(value: Any) -> str:
    return KIND_IN_WORDS.get(type(value), "a number")


def _names(names: Any) -> str:
    listed = [f"'{str(name)[:60]}'" for name in names]
    shown = ", ".join(listed[:12])
    return shown + (f" and {len(listed) - 12} more" if len(listed) > 12 else "")


def mismatch(sentence: str) -> Invalid:
    """A 422 that says where the rows differ from what the model takes."""
    return Invalid(sentence, code="signature_mismatch")
