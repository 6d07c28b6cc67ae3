"""Lengths of time as people write them: `90d`."""

import re
from datetime import timedelta

from common.errors import Invalid

DURATION = re.compile(r"([1-9][0-9]{0,5})([mhdw])")
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
LONGEST = timedelta(days=3660)


def parse_duration(text: str) -> timedelta:
    """The length of time that `30m`, `12h`, `90d` or `4w` says.

    Raises:
        Invalid: it is none of these, or longer than ten years.
    """
    matched = DURATION.fullmatch(text.strip())
    length = timedelta(**{UNITS[matched[2]]: int(matched[1])}) if matched else None
    if length is None or length > LONGEST:
        raise Invalid(
            "A length of time is a number and m, h, d or w, such as 90d, up to ten years.",
            fields={"expires": text[:20]},
        )
    return length
