"""Which library version an artifact says it was made with, read from its bytes; used inside a runner only.

Loading would tell, but what another version made may not load, or may crash its process.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zipfile
import zlib
from typing import BinaryIO

from runtimes.bundle import Files

HEAD_BYTES = 32 << 20  # every estimator of a file names its version; the first one comes early
# the key of an estimator's state and its value, between them the marks of pickle (any protocol) or of JSON
SCIKIT_LEARN = re.compile(rb"_sklearn_version.{1,120}?[^0-9.](\d{1,3}\.\d{1,3}(?:\.[0-9a-z]{1,12})*)", re.DOTALL)
ZIP = b"PK\x03\x04"
SCHEMA = "schema.json"  # of a skops file


def made_with(bundle: Files, path: str) -> dict[str, str]:
    """The versions by library; empty where the file says none. A damaged file is somebody else's to report."""
    try:
        with bundle.open(path) as file:
            found = SCIKIT_LEARN.search(_text(file))
    except (OSError, EOFError, ValueError, KeyError, zlib.error, lzma.LZMAError, zipfile.BadZipFile):
        return {}
    return {"scikit-learn": found[1].decode()} if found else {}


def _text(file: BinaryIO) -> bytes:
    """The beginning of the file as its writer wrote it, before it was compressed."""
    head = file.read(HEAD_BYTES)
    if head.startswith(ZIP):
        file.seek(0)
        with zipfile.ZipFile(file) as archive, archive.open(SCHEMA) as schema:
            return schema.read(HEAD_BYTES)
    if head.startswith((b"\x1f\x8b", b"\x78")):
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(head, HEAD_BYTES)
    if head.startswith(b"BZh"):
        return bz2.BZ2Decompressor().decompress(head, HEAD_BYTES)
    if head.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
        return lzma.LZMADecompressor().decompress(head, HEAD_BYTES)
    return head
