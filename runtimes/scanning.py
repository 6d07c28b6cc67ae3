"""What a scanner says of an artifact's pickles: advice for people, never a reason to let something run or not.

It runs in a confined runner of its own, over the artifact's bytes, so that whatever stops or fools it costs no more
than its report.
"""

from __future__ import annotations

import bz2
import gzip
import importlib.metadata
import io
import logging
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from runtimes.bundle import Files
from runtimes.errors import plain
from runtimes.formats.recognition import HEAD_BYTES, is_pickle

MAX_FILE_BYTES = 32 << 20  # the scanner keeps every instruction of a pickle in memory
MAX_FINDINGS = 50
DANGEROUS = "dangerous"
OPENERS: Mapping[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x5d\x00\x00": lzma.LZMAFile,
}
ZLIB = b"\x78"
ZIP = b"PK\x03\x04"


def scan(files: Files) -> dict[str, Any]:
    """The scanner and its findings: what each pickle in the artifact imports that can do harm."""
    from picklescan import scanner  # it is small, and only this runner needs it

    logging.getLogger("picklescan").setLevel(logging.CRITICAL)
    findings: list[str] = []
    for path in files.paths():
        for finding in _of_file(scanner, files, path):
            if len(findings) == MAX_FINDINGS:
                return _report([*findings, "There is more."])
            findings.append(finding)
    return _report(findings)


def _report(findings: list[str]) -> dict[str, Any]:
    return {"scanner": f"picklescan {importlib.metadata.version('picklescan')}", "findings": findings}


def _of_file(scanner: Any, files: Files, path: str) -> Iterator[str]:
    shown = plain(path, 80)
    if files.size(path) > MAX_FILE_BYTES and not _is_zip(files, path):
        yield f"{shown} is too large for the scanner."
        return
    try:
        with files.open(path) as file:
            content = _decompressed(file)
            if content is None:
                yield f"{shown} holds too much for the scanner."
                return
            head = content.read(HEAD_BYTES)
            if not head.startswith(ZIP) and not is_pickle(head):
                return
            content.seek(0)
            result = scanner.scan_bytes(content, shown)
    except Exception as error:  # a hostile file may make the scanner raise anything
        yield f"{shown} could not be scanned ({plain(type(error).__name__, 60)})."
        return
    # "suspicious" is all that the scanner does not know, the estimators of every library among it
    named = {f"{entry.module}.{entry.name}" for entry in result.globals if entry.safety.value == DANGEROUS}
    yield from (f"{shown} imports {plain(name, 120)}, which the scanner calls dangerous." for name in sorted(named))


def _is_zip(files: Files, path: str) -> bool:
    with files.open(path) as file:
        return file.read(4) == ZIP  # weights in it are not pickles, and are passed over


def _decompressed(file: BinaryIO) -> BinaryIO | None:
    """The file, or what joblib compressed into it; None if that is too much."""
    head = file.read(8)
    file.seek(0)
    if head[:1] == ZLIB:
        engine = zlib.decompressobj()
        data = engine.decompress(file.read(), MAX_FILE_BYTES)
        return None if engine.unconsumed_tail else io.BytesIO(data)
    opener = next((opener for mark, opener in OPENERS.items() if head.startswith(mark)), None)
    if opener is None:
        return file
    data = opener(file).read(MAX_FILE_BYTES)
    return None if len(data) == MAX_FILE_BYTES else io.BytesIO(data)
