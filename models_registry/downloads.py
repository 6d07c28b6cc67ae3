"""Sending a version's files: streamed, verified, and never mistaken for whole when they are not.

Each answer announces its length. Granian ends a chunked answer as if it were whole when its iterator raises (tried);
one that stops before its length is an error to every client.
"""

import io
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

from django.http import HttpResponse, StreamingHttpResponse
from django.utils.http import content_disposition_header

from models_registry.blobs import open_file
from models_registry.models import BundleFile, ModelVersion
from tenants.scope import current_tenant, tenant_scope

PIECE_BYTES = 1 << 20
LOCAL_HEADER_BYTES, DESCRIPTOR_BYTES, CENTRAL_HEADER_BYTES = 30 + 20, 24, 46
END_BYTES, ZIP64_END_BYTES = 22, 56 + 20


def send_file(file: BundleFile, content_type: str = "application/octet-stream") -> StreamingHttpResponse:
    """An answer with one file of a bundle, under its own name."""
    name = file.path.rpartition("/")[2]
    return _attachment(_read(file), file.blob.size_bytes, name, content_type, file.blob.sha256)


def show_file(file: BundleFile, content_type: str) -> StreamingHttpResponse:
    """The same for a file that this platform has made, which browsers show as what it is and as nothing else."""
    response = send_file(file, content_type)
    response["Content-Disposition"] = "inline"
    return response


def show_png(png: bytes) -> HttpResponse:
    """An answer with an image that this platform has made."""
    response = HttpResponse(png, content_type="image/png")
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "sandbox; default-src 'none'"
    return response


def send_artifact(version: ModelVersion) -> StreamingHttpResponse:
    """An answer with a version as it was uploaded: its one file, or a zip of several."""
    files = list(version.bundle.files.select_related("blob"))
    if len(files) == 1:
        return send_file(files[0])
    return send_files(files, f"{version.model.name}-v{version.number}.zip", version.bundle.digest)


def send_files(files: list[BundleFile], name: str, digest: str) -> StreamingHttpResponse:
    """An answer with a zip of these files, each under its path. digest: says which answer this is."""
    return _attachment(_zip(files), zip_bytes(files), name, "application/zip", digest)


def zip_bytes(files: list[BundleFile]) -> int:
    """The size of the zip of these files, before one of them is read."""
    position, central = 0, 0
    for file in files:
        size_bytes, name_bytes = file.blob.size_bytes, len(file.path.encode())
        large = [size_bytes] * 2 if size_bytes > zipfile.ZIP64_LIMIT else []
        large += [position] if position > zipfile.ZIP64_LIMIT else []
        central += CENTRAL_HEADER_BYTES + name_bytes + (4 + 8 * len(large) if large else 0)
        position += LOCAL_HEADER_BYTES + name_bytes + size_bytes + DESCRIPTOR_BYTES
    is_large = max(position, central) > zipfile.ZIP64_LIMIT or len(files) > zipfile.ZIP_FILECOUNT_LIMIT
    return position + central + (ZIP64_END_BYTES if is_large else 0) + END_BYTES


def _attachment(
    pieces: Iterator[bytes], size_bytes: int, name: str, content_type: str, digest: str
) -> StreamingHttpResponse:
    """An answer that browsers save and never show: its bytes and its name are a tenant's."""
    first = next(pieces, b"")  # a storage that fails at once still gets an answer of its own
    response = StreamingHttpResponse(_in_tenant(first, pieces), content_type=content_type)
    response["Content-Length"] = str(size_bytes)
    response["Content-Disposition"] = content_disposition_header(True, name) or "attachment"
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Security-Policy"] = "sandbox; default-src 'none'"
    response["ETag"] = f'"{digest}"'
    return response


class _in_tenant:
    """The pieces, each made in the tenant that the request was in: it is streamed after the request has left it."""

    def __init__(self, first: bytes, pieces: Iterator[bytes]) -> None:
        self._first: bytes | None = first
        self._pieces = pieces
        self._tenant = current_tenant()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        with tenant_scope(self._tenant):
            piece = next(self._pieces, None)
        if piece is None:
            raise StopIteration
        return piece

    def close(self) -> None:
        """Close what is open; Django calls it when the client has gone, too."""
        self._pieces.close()  # type: ignore[attr-defined]


def _read(file: BundleFile) -> Iterator[bytes]:
    with open_file(file) as source:
        yield from _pieces(source)


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    while piece := source.read(PIECE_BYTES):
        yield piece


def _zip(files: list[BundleFile]) -> Iterator[bytes]:
    """A zip of the files as they are: what is in them rarely packs, and its size can be told before."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            entry = zipfile.ZipInfo(file.path)
            entry.external_attr = 0o100644 << 16
            with open_file(file) as source, archive.open(entry, "w", force_zip64=True) as target:
                for piece in _pieces(source):
                    target.write(piece)
                    yield sink.take()
    yield sink.take()


class _Sink(io.RawIOBase):
    """Where a ZipFile writes to and nothing is kept."""

    def __init__(self) -> None:
        super().__init__()
        self._written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        self._written.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """What was written since the last time."""
        written, self._written = b"".join(self._written), []
        return written
