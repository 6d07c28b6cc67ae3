"""The bytes of datasets and programs on a worker's own disk, for a runner to read."""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from models_registry import blobs
from models_registry.models import Bundle, BundleFile
from models_registry.spooling import spool_folder
from runtimes.bundle import pack
from training.models import DatasetVersion

CODE, DATA = "code/", "data"


def local_copy(version: DatasetVersion) -> AbstractContextManager[int]:
    """A read-only descriptor of the dataset's verified bytes, from an unnamed file that is gone after the block."""
    return blobs.local_copy(_table(version))


@contextmanager
def packed_with_code(version: DatasetVersion, code: Bundle) -> Iterator[int]:
    """A read-only descriptor of a packed bundle with the dataset and the files of a program."""
    with tempfile.TemporaryFile(dir=spool_folder()) as packed:
        files = [(DATA, _table(version)), *((f"{CODE}{file.path}", file) for file in code.files.select_related("blob"))]
        opened = ((path, blobs.open_file(file), file.blob.size_bytes) for path, file in files)
        pack(opened, packed)
        with blobs.read_only(packed) as descriptor:
            yield descriptor


def _table(version: DatasetVersion) -> BundleFile:
    return version.bundle.files.select_related("blob").get(path=version.path)
