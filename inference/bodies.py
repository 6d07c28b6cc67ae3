"""A predict request's body, checked as far as it can be without knowing the model."""

from collections.abc import Mapping
from types import NoneType
from typing import Any

import orjson

from common.errors import Invalid, Malformed
from inference.decoding import FORMS

OPTIONS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "version": ((int,), "a whole number"),
    "alias": ((str,), "a text"),
    "select": ((dict,), 'an object such as {"metric": "auc", "direction": "max"}'),
    "probabilities": ((bool,), "true or false"),
    "async": ((bool,), "true or false"),
    "deadline_ms": ((int, float), "a number of milliseconds above zero"),
}


def parse(content: bytes) -> dict[str, Any]:
    """The JSON object in a body, with no field that `predict` does not have and each option of its type.

    Raises:
        Malformed: it is no JSON object. Invalid: with every fault by its field.
    """
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON: {error}.") from error
    if not isinstance(body, dict):
        raise Malformed("The body is a JSON object.")
    if faults := {name[:100]: fault for name, value in body.items() if (fault := _fault(name, value))}:
        raise Invalid("Some fields are not right.", fields=faults)
    return body


def _fault(name: str, value: Any) -> str:
    if name in FORMS:
        return ""
    if name not in OPTIONS:
        return f"There is no such field; there are {', '.join((*FORMS, *OPTIONS))}."
    kinds, words = OPTIONS[name]
    return "" if type(value) in (*kinds, NoneType) else f"{name} is {words}."
