"""A predict request's body, checked as far as it can be without knowing the model."""

from collections.abc import Mapping
from types import NoneType
from typing import Any

import orjson

from common.errors import Invalid, Malformed, TooLarge
from inference.decoding import FORMS

# A small value takes many times its text once it is read, so a large body is counted before it is parsed.
COUNTED_FROM_BYTES = 1 << 20
MOST_LISTS_AND_OBJECTS = 250_000
MOST_VALUES = 4_000_000

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
        TooLarge: it holds more lists or values than are taken at once.
    """
    body = read(content)
    if faults := {name[:100]: fault for name, value in body.items() if (fault := _fault(name, value))}:
        raise Invalid("Some fields are not right.", fields=faults)
    return body


def read(content: bytes) -> dict[str, Any]:
    """The JSON object in a body of whichever protocol.

    Raises:
        Malformed: it is no JSON object. TooLarge: it holds more lists or values than are taken at once.
    """
    if len(content) > COUNTED_FROM_BYTES:
        _count(content)
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"The body is not JSON: {error}.") from error
    if not isinstance(body, dict):
        raise Malformed("The body is a JSON object.")
    return body


def _count(content: bytes) -> None:
    lists, values = content.count(b"[") + content.count(b"{"), content.count(b",")
    if lists > MOST_LISTS_AND_OBJECTS or values > MOST_VALUES:
        raise TooLarge(
            f"A predict body has at most {MOST_VALUES:,} values in {MOST_LISTS_AND_OBJECTS:,} lists and objects; "
            "send fewer rows at once."
        )


def _fault(name: str, value: Any) -> str:
    if name in FORMS:
        return ""
    if name not in OPTIONS:
        return f"There is no such field; there are {', '.join((*FORMS, *OPTIONS))}."
    kinds, words = OPTIONS[name]
    return "" if type(value) in (*kinds, NoneType) else f"{name} is {words}."
