"""Where an upload's bytes wait for their storage: on the local disk, in files without a name."""

import tempfile
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler

MEMORY_BYTES = 64 << 10
ABANDONED_AFTER_S = 24 * 3600.0


class SpooledUpload(UploadedFile):  # type: ignore[type-arg]
    """An uploaded file. path: its name as it was sent, folders included; check it before use."""

    def __init__(self, path: str, content_type: str | None, charset: str | None) -> None:
        file = tempfile.SpooledTemporaryFile(MEMORY_BYTES, dir=spool_folder())  # noqa: SIM115 closed with the request
        super().__init__(file, path, content_type, 0, charset)
        self.path = path


class SpoolingUploadHandler(FileUploadHandler):
    """Receives files: small ones into memory, others into unnamed files, so that a killed upload leaves nothing.

    Django's own handler leaves a named file behind when its process is killed.
    """

    chunk_size = 1 << 18

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        self.file = SpooledUpload(self.file_name or "", self.content_type, self.charset)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        self.file.write(raw_data)

    def file_complete(self, file_size: int) -> SpooledUpload:
        self.file.seek(0)
        self.file.size = file_size
        return self.file

    def upload_interrupted(self) -> None:
        if hasattr(self, "file"):
            self.file.close()


def spool_folder() -> str:
    """The folder for uploads, made if it is missing."""
    Path(settings.FILE_UPLOAD_TEMP_DIR).mkdir(mode=0o700, parents=True, exist_ok=True)
    return str(settings.FILE_UPLOAD_TEMP_DIR)


def sweep() -> int:
    """Remove named uploads that a killed process left on this machine, by whichever handler; how many."""
    oldest = time.time() - ABANDONED_AFTER_S
    stale = [path for path in Path(spool_folder()).glob("*.upload*") if path.stat().st_mtime < oldest]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)
