"""Reading a version's multipart upload: files with their folders, and metadata."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from django.http import QueryDict
from django.http.multipartparser import MultiPartParser, MultiPartParserError
from rest_framework.parsers import BaseParser, DataAndFiles
from rest_framework.request import Request

from common.errors import Invalid, Malformed
from models_registry.blobs import IncomingFile
from models_registry.metadata import VersionMetadata, parse_metadata
from models_registry.paths import check_path, check_paths
from models_registry.spooling import SpooledUpload, SpoolingUploadHandler

FILE, METADATA = "file", "metadata"
MAX_FILES = 500  # each may hold a descriptor of this process while it waits for its storage
MAX_METADATA_BYTES = 4 << 20


class FolderUploadParser(BaseParser):
    """Multipart whose file names may hold folders; what a bundle may not have is refused before it is received."""

    media_type = "multipart/form-data"

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> "DataAndFiles[Any, Any]":
        request = cast(Request, (parser_context or {})["request"])
        meta = request.META | {"CONTENT_TYPE": media_type}
        handlers = [SpoolingUploadHandler(request._request)]
        try:
            fields, files = _PathKeepingParser(meta, stream, handlers, "utf-8").parse()
        except MultiPartParserError as error:
            raise Malformed(f"The multipart body cannot be read: {error}.") from error
        return DataAndFiles(fields, files)


class _PathKeepingParser(MultiPartParser):
    """Django's parser, which would keep the last part of a path only."""

    def sanitize_file_name(self, file_name: str) -> str | None:
        check_path(file_name)
        return file_name


def metadata_of(request: Request) -> VersionMetadata:
    """The upload's metadata, sent as a field or as a file part.

    Raises:
        Malformed: not JSON, or sent twice. Invalid: JSON that no metadata may be.
    """
    parts = _body(request).getlist(METADATA)
    if len(parts) > 1:
        raise Malformed("Send metadata once.", fields={METADATA: "comes twice"})
    if not parts:
        return VersionMetadata()
    part: Any = parts[0]
    text = part if isinstance(part, str) else part.read(MAX_METADATA_BYTES + 1)
    if len(text) > MAX_METADATA_BYTES:
        raise Invalid("The metadata is too large.", fields={METADATA: f"has more than {MAX_METADATA_BYTES} bytes"})
    return parse_metadata(_json(text) if text else {})


@contextmanager
def incoming_files(request: Request) -> Iterator[list[IncomingFile]]:
    """The upload's files, closed after the block.

    Raises:
        Malformed: a part that an upload does not have. Invalid: no file, too many, or a path that no bundle may have.
    """
    data = _body(request)
    uploads = [cast(SpooledUpload, part) for part in data.getlist(FILE) if not isinstance(part, str)]
    try:
        _check_parts(data, uploads)
        yield [IncomingFile(upload.path, cast(Any, upload.file)) for upload in uploads]
    finally:
        for upload in uploads:
            upload.close()


def _body(request: Request) -> QueryDict:
    """The parts of the body; none where there is no body, of which DRF makes an empty dict."""
    return request.data if isinstance(request.data, QueryDict) else QueryDict()


def _check_parts(data: QueryDict, uploads: list[SpooledUpload]) -> None:
    if unknown := sorted(set(data) - {FILE, METADATA}):
        names = {name[:100]: "is unknown" for name in unknown}
        raise Malformed(f"An upload has the parts '{FILE}' and '{METADATA}'.", fields=names)
    if not uploads or len(uploads) != len(data.getlist(FILE)):
        raise Invalid(
            f"Send at least one file, in a part named '{FILE}' with a file name.",
            code="no_file",
            fields={FILE: "is missing"},
        )
    if len(uploads) > MAX_FILES:
        raise Invalid(f"A version has at most {MAX_FILES} files.", fields={FILE: f"{len(uploads)} were sent"})
    check_paths(upload.path for upload in uploads)


def _json(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed("The metadata is not JSON.", fields={METADATA: str(error)[:200]}) from error
