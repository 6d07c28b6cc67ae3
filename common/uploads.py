"""What becomes of files where none are expected."""

from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.core.files.uploadhandler import FileUploadHandler


class FilesRefused(RequestDataTooBig):
    """A body brought a file to a place that takes none."""


class RefusingUploadHandler(FileUploadHandler):
    """Refuses a body at its first file, before the file is read.

    The check for CSRF tokens reads bodies before anybody knows who sent them, so this is what there is from the start;
    the views that take files put another handler into its place once they know.
    """

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        raise FilesRefused("This page takes no files.")

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        """Never called: no file begins."""

    def file_complete(self, file_size: int) -> None:
        """Never called: no file begins."""
