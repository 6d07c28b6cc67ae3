"""What the query of a request's address says, read the same way everywhere."""

from collections.abc import Collection

from django.http import HttpRequest
from rest_framework.request import Request

from common.errors import Invalid

SHOWN_CHARS = 100


def text_asked(request: Request | HttpRequest, name: str, choices: Collection[str] = ()) -> str:
    """The value of a filter; empty if it is absent.

    Raises:
        Invalid: none of the choices.
    """
    value: str | None = request.GET.get(name)
    if value is not None and choices and value not in choices:
        raise Invalid(f"{name} is one of {', '.join(choices)}.", fields={name: value[:SHOWN_CHARS]})
    return value or ""


def whole_number_asked(request: Request | HttpRequest, name: str, default: int, most: int) -> int:
    """A number from 1 to `most`; the default if it is absent.

    Raises:
        Invalid: anything else.
    """
    raw = request.GET.get(name, str(default))
    is_number = raw.isascii() and raw.isdecimal() and len(raw) <= len(str(most))
    if not is_number or not 1 <= int(raw) <= most:
        raise Invalid(f"{name} is a whole number from 1 to {most}.", fields={name: raw[:SHOWN_CHARS]})
    return int(raw)
