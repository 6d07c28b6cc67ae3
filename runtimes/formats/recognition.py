"""Which format a file is, told by its bytes and never by its name; used inside a runner only."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass

from runtimes.bundle import Bundle
from runtimes.errors import ArtifactRejected, plain

HEAD_BYTES = 4096
MAX_ZIP_ENTRIES = 100_000
TORCH_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x5d\x00\x00", b"\x04\x22\x4d\x18")
ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
TENSORFLOW = "Keras and TensorFlow files are not served; convert the model to ONNX with tf2onnx and upload that."


@dataclass(frozen=True)
class Recognised:
    """The file of a bundle that holds the model, and its format."""

    format: str
    path: str


def recognise(bundle: Bundle) -> Recognised:
    """The one model file in the bundle.

    Raises:
        ArtifactRejected: there is none, or there are several.
    """
    found = {path: name for path in bundle.paths() if (name := _format(bundle, path)) is not None}
    if len(found) == 1:
        path, name = next(iter(found.items()))
        return Recognised(name, path)
    if found:
        names = ", ".join(plain(path, 80) for path in list(found)[:5])
        raise ArtifactRejected("ambiguous_artifact", f"The upload holds several model files ({names}); send one.")
    if all(bundle.size(path) == 0 for path in bundle.paths()):
        raise ArtifactRejected("unreadable_artifact", "The file is empty.")
    raise ArtifactRejected(
        "unsupported_format",
        "The file is no model in a known format (scikit-learn pickle, joblib or skops, torch .pth, TorchScript, ONNX).",
    )


def _format(bundle: Bundle, path: str) -> str | None:
    with bundle.open(path) as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(b"PK\x03\x04"):
        return _format_of_zip(bundle, path)
    if head.startswith(b"\x89HDF"):
        raise ArtifactRejected("unsupported_format", TENSORFLOW)
    if head.startswith(TORCH_LEGACY) or (_is_pickle(head) and b"torch" in head):
        return "torch"
    if _is_pickle(head) or head.startswith(COMPRESSED + ZLIB):
        return "sklearn"
    return "onnx" if _is_onnx(head) else None


def _is_pickle(head: bytes) -> bool:
    if head[:1] == b"\x80":
        return len(head) > 1 and head[1] in (2, 3, 4, 5)
    # protocols 0 and 1 have no mark: a global, a tuple, a list or a dict, and text that names a module
    return head[:1] in (b"c", b"(") and head[:200].isascii() and b"\n" in head[:200]


def _is_onnx(head: bytes) -> bool:
    """A protobuf ModelProto begins with its first field, the small integer ir_version."""
    return (
        len(head) > 4 and head[0] == 0x08 and 0 < head[1] < 64 and head[2] in (0x12, 0x1A, 0x22, 0x2A, 0x32, 0x3A, 0x42)
    )


def _format_of_zip(bundle: Bundle, path: str) -> str | None:
    try:
        with bundle.open(path) as file, zipfile.ZipFile(file) as archive:
            names = {name.partition("/")[2] or name for name in archive.namelist()[:MAX_ZIP_ENTRIES]}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise ArtifactRejected(
            "unreadable_artifact", "The file is a damaged zip archive; it may have been cut."
        ) from error
    if "schema.json" in names:
        return "skops"
    if "constants.pkl" in names and "data.pkl" in names:
        return "torchscript"
    if "data.pkl" in names:
        return "torch"
    if {"config.json", "model.weights.h5"} & names or "saved_model.pb" in names:
        raise ArtifactRejected("unsupported_format", TENSORFLOW)
    return None
