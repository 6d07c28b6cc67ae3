"""A tenant's own training program: a zip with `train.py`, unpacked and kept as a bundle."""

import io
import lzma
import zipfile
import zlib
from typing import BinaryIO

from common.errors import Invalid, TooLarge
from models_registry.blobs import IncomingFile, store_bundle
from models_registry.models import Bundle
from models_registry.paths import check_paths

ENTRY = "train.py"
MOST_FILES, MOST_BYTES = 200, 4 << 20
# What zipfile raises over bytes that are no zip, or one whose files are damaged or encrypted.
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    IndexError,
    ValueError,
    OSError,
)


def keep_program(file: BinaryIO) -> Bundle:
    """The bundle with the zip's files; the same files are the same bundle.

    Raises:
        Invalid: it is no zip, a path in it leads outside of it, or it has no `train.py` at its top.
        TooLarge: it holds more than a program may.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            files = _files(archive)
    except DAMAGED as error:
        raise Invalid("The program is no zip file that can be read.", fields={"code": "no zip file"}) from error
    if ENTRY not in files:
        raise Invalid(f"The zip has no {ENTRY} at its top.", fields={"code": f"it needs a {ENTRY}"})
    return store_bundle([IncomingFile(path=path, file=io.BytesIO(data)) for path, data in sorted(files.items())])


def _files(archive: zipfile.ZipFile) -> dict[str, bytes]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len(entries) > MOST_FILES:
        raise TooLarge(f"The program has {len(entries)} files, and at most {MOST_FILES} are taken.")
    left, files = MOST_BYTES, {}
    for entry in entries:
        with archive.open(entry) as file:
            data = file.read(left + 1)
        left -= len(data)
        if left < 0:
            raise TooLarge(f"The program has more than {MOST_BYTES} bytes; data belongs into a dataset.")
        files[entry.filename] = data
    check_paths(files)
    return files
