"""Which paths a file of a bundle may have: plain, relative, and the same file on every system that unpacks them."""

import re
import unicodedata
from collections.abc import Container, Iterable

from common.errors import Invalid

MAX_PATH_CHARS = 500
MAX_PART_BYTES = 255
DRIVE = re.compile(r"[A-Za-z]:")


def check_path(path: str) -> None:
    """Go on only with a path that stays inside its bundle, wherever it is unpacked.

    Raises:
        Invalid: it is empty, too long or absolute, or has '.', '..', '\\\\', empty parts or control characters.
    """
    if reason := _fault(path):
        shown = "".join(character if character.isprintable() else "?" for character in path[:80])
        raise Invalid(f"The file name '{shown}' {reason}.", code="bad_file_name", fields={"file": reason})


def check_paths(paths: Iterable[str]) -> None:
    """Go on only if each path is fine and no two of them meet.

    Two that differ only in case or in how their accents are composed are one file on some systems, so they are refused.

    Raises:
        Invalid: one is not fine, or two meet.
    """
    seen: set[str] = set()
    for path in paths:
        check_path(path)
        key = _folded(path)
        if key in seen:
            raise Invalid(
                f"The file name '{path[:80]}' comes twice (upper and lower case count as the same).",
                code="bad_file_name",
                fields={"file": "comes twice"},
            )
        seen.add(key)
    for key in seen:
        _check_parents(key, seen)


def _check_parents(key: str, files: Container[str]) -> None:
    parts = key.split("/")
    for count in range(1, len(parts)):
        if (parent := "/".join(parts[:count])) in files:
            raise Invalid(
                f"'{parent[:80]}' is a file and a folder at once.",
                code="bad_file_name",
                fields={"file": "is a folder too"},
            )


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _fault(path: str) -> str:
    """What is wrong with a path, as the end of a sentence; empty if nothing is."""
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") for part in parts) or DRIVE.match(path):
        return "must be relative, without '.', '..' or empty parts"
    if "\\" in path:
        return "has a backslash; folders are parted by '/'"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in path):
        return "has control characters"
    if len(path) > MAX_PATH_CHARS or any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        return f"is too long ({MAX_PATH_CHARS} characters, {MAX_PART_BYTES} bytes between two '/')"
    return ""
