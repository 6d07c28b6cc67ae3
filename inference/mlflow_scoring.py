"""MLflow's scoring protocol for one model: `/ping`, `/version` and `/invocations` below `models/{name}`."""

import csv
import io
import math
from collections.abc import Callable, Mapping
from importlib.metadata import version as version_of
from typing import Any

import orjson
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path

from common.errors import Invalid, Malformed, TooLarge, UnsupportedMedia
from inference import bodies, lanes
from inference.decoding import FORMS, decode, mismatch
from inference.predictions import checked_size, deadline_of
from inference.protocols import answering, content_of
from inference.routing import route
from runtimes.signature import STRING, Field, Signature
from tenants.models import Scope

JSON, CSV = "application/json", "text/csv"
MISSING = ("", "nan", "NaN", "null")
TRUTHS = {"true": True, "false": False}


@answering("GET")
def ping(request: HttpRequest, name: str) -> HttpResponse:
    """200 if the model serves."""
    route(name, {})
    return HttpResponse("\n", content_type=JSON)


@answering("GET")
def version(request: HttpRequest, name: str) -> HttpResponse:
    """What answers; MLflow's own server says which MLflow it is."""
    route(name, {})
    return HttpResponse(f"tenantry {version_of('tenantry')}", content_type="text/plain")


@answering("POST", Scope.PREDICT)
def invocations(request: HttpRequest, name: str) -> HttpResponse:
    """Predict rows that come as JSON or CSV."""
    found = route(name, {}, request.META.get("HTTP_X_ROUTING_KEY"))
    signature = found.version.signature
    decoded = decode(_body(request, signature), signature)
    prediction = lanes.predict(
        found, decoded, probabilities=False, deadline=deadline_of({}, settings.PREDICTION_DEADLINE_S)
    )
    checked_size(*prediction.outputs.values())
    outputs = {name: values.tolist() for name, values in prediction.outputs.items()}
    answer = {"predictions": next(iter(outputs.values())) if len(outputs) == 1 else outputs}
    response = HttpResponse(orjson.dumps(answer), content_type=JSON)
    response["X-Model-Version"] = str(found.version.number)
    return response


def _body(request: HttpRequest, signature: Signature) -> Mapping[str, Any]:
    """The request's rows in one of the forms that `decode` takes.

    Raises:
        UnsupportedMedia: neither JSON nor CSV. Malformed, TooLarge: not what it says. Invalid: `params` were sent.
    """
    kind = (request.content_type or JSON).lower()
    if kind == CSV:
        return {"dataframe_split": _table(content_of(request), signature)}
    if kind != JSON:
        raise UnsupportedMedia(f"Send {JSON} or {CSV}, not {kind[:80]}.")
    body = bodies.read(content_of(request))
    if body.pop("params", None):
        raise Invalid("Models take no params here: a version predicts the same way for everybody.")
    if unknown := body.keys() - set(FORMS):
        raise Malformed(
            f"There is no such field: {', '.join(sorted(unknown))[:200]}. There are {', '.join(FORMS)}, params."
        )
    return body


# --- CSV -------------------------------------------------------------------------------------------------------------


def _table(content: bytes, signature: Signature) -> dict[str, Any]:
    """A table with its header, each cell as the signature's field has it."""
    if content.count(b",") + content.count(b"\n") > bodies.MOST_VALUES:
        raise TooLarge(f"A table has at most {bodies.MOST_VALUES:,} cells; send fewer rows at once.")
    header, *rows = _cells(content)
    fields = _fields(header, signature)
    faults = (index for index, row in enumerate(rows) if len(row) != len(header))
    if (ragged := next(faults, None)) is not None:
        raise mismatch(f"Row {ragged} has {len(rows[ragged])} cells, but the header has {len(header)}.")
    readers = [_reader(field) for field in fields]
    data = [
        [read(cell, index, name) for read, cell, name in zip(readers, row, header, strict=True)]
        for index, row in enumerate(rows)
    ]
    return {"columns": header, "data": data}


def _cells(content: bytes) -> list[list[str]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Malformed("The table is not UTF-8.") from error
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise Malformed(f"The table cannot be read: {error}.") from error
    if not rows:
        raise Malformed("The table is empty: its first line names the columns.")
    return rows


def _fields(header: list[str], signature: Signature) -> list[Field]:
    """The field of each column; a model without named columns takes every column as one more value."""
    if signature.layout == "tensor":
        return [signature.inputs[0]] * len(header)
    by_name = {field.name: field for field in signature.inputs}
    return [by_name.get(name) or Field(name, STRING, (-1,)) for name in header]  # an unknown one is refused later


def _reader(field: Field) -> Callable[[str, int, str], Any]:
    """What reads a cell of this field."""
    convert = _converter(field)

    def read(cell: str, index: int, name: str) -> Any:
        if field.nullable and cell.strip() in MISSING:
            return None
        try:
            return convert(cell)
        except (ValueError, KeyError, OverflowError) as error:
            kind = "a string" if field.dtype == STRING else field.dtype
            raise mismatch(f"The value at row {index}, column '{name[:60]}' is no {kind}: '{cell[:40]}'.") from error

    return read


def _converter(field: Field) -> Callable[[str], Any]:
    if field.dtype == STRING:
        return str
    if field.dtype == "bool":
        return lambda cell: TRUTHS[cell.strip().lower()]
    return _float if field.dtype.startswith("float") else lambda cell: int(_plain(cell))


def _float(cell: str) -> float:
    value = float(_plain(cell))
    if math.isnan(value):  # where one may be missing, it has been recognised before
        raise ValueError(cell)
    return value


def _plain(cell: str) -> str:
    """A cell as people write numbers: Python alone takes underscores."""
    if "_" in cell:
        raise ValueError(cell)
    return cell


urlpatterns = [
    path("models/<str:name>/ping", ping),
    path("models/<str:name>/version", version),
    path("models/<str:name>/invocations", invocations),
]
