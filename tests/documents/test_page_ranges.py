"""Pages as people name them."""

import pytest

from common.errors import Invalid
from documents.page_ranges import pages_of, parsed, written


@pytest.mark.parametrize(
    ("text", "pages"),
    [("", [1, 2, 3, 4, 5]), ("2", [2]), ("1-3,5", [1, 2, 3, 5]), (" 4 - 5 , 1", [1, 4, 5]), ("2,2,1-2", [1, 2])],
)
def test_pages_are_read_in_their_order_each_once(text: str, pages: list[int]) -> None:
    ranges = parsed(text)
    assert pages_of(ranges, 5) == pages
    assert parsed(written(ranges)) == ranges


@pytest.mark.parametrize(
    "text", ["0", "1-", "-3", "3-1", "1,,2", "a", "1;2", "1 2", "٣", "1-9999999", "1," * 300 + "1"]
)
def test_what_names_no_pages_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parsed(text)


def test_a_page_that_is_not_there_is_named() -> None:
    with pytest.raises(Invalid) as refused:
        pages_of(parsed("1,7"), 6)
    assert (refused.value.code, refused.value.message) == (
        "no_such_page",
        "The document has 6 pages, so there is no page 7.",
    )
