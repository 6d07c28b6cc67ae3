"""The bytes of datasets and programs on a worker's own disk, for a runner to read."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from models_registry.blobs import open_file
from models_registry.models import Bundle
from models_registry.spooling import spool_folder
from runtimes.bundle import pack
from training.models import DatasetVersion

COPY_BYTES = 1 << 20
CODE, DATA = "code/", "data"


@contextmanager
def local_copy(version: DatasetVersion) -> Iterator[int]:
    """A read-only descriptor of the dataset's verified bytes, from an unnamed file that is gone after the block."""
    with tempfile.TemporaryFile(dir=spool_folder()) as copy:
        with open_file(version.bundle.files.select_related("blob").get(path=version.path)) as source:
            shutil.copyfileobj(source, copy, COPY_BYTES)
        with _read_only(copy) as descriptor:
            yield descriptor


@contextmanager
def packed_with_code(version: DatasetVersion, code: Bundle) -> Iterator[int]:
    """A read-only descriptor of a packed bundle with the dataset and the files of a program."""
    with tempfile.TemporaryFile(dir=spool_folder()) as packed:
        data = version.bundle.files.select_related("blob").get(path=version.path)
        files = [(DATA, data), *((f"{CODE}{file.path}", file) for file in code.files.select_related("blob"))]
        opened = ((path, open_file(file), file.blob.size_bytes) for path, file in files)
        pack(opened, packed)
        with _read_only(packed) as descriptor:
            yield descriptor


@contextmanager
def _read_only(file: IO[bytes]) -> Iterator[int]:
    """Opened once more, so that what goes to the runner cannot be written to."""
    file.flush()
    descriptor = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
