"""Which format an artifact is, told by its bytes and never by its name; used inside a runner only."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from runtimes.bundle import Files
from runtimes.bundled_code import is_code
from runtimes.errors import ArtifactRejected, plain
from runtimes.folders import DAMAGED, Subfolder, ZipFolder
from runtimes.formats import detectron2_config, mlflow_folder
from runtimes.protocol import Findings, Source

HEAD_BYTES = 4096
MAX_ZIP_ENTRIES = 100_000
TORCH_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x5d\x00\x00", b"\x04\x22\x4d\x18")
ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
# protocols 0 and 1 have no mark: a global, or a tuple, list or dict that is being filled
OLD_PICKLE = re.compile(rb"c[\w.]+\n[\w.]+\n|\((c[\w.]+\n|i[\w.]+\n|[dltp(SVIFN\]}])")
XGBOOST = re.compile(rb'\{\s*"(learner|version)"\s*:|\{L.{7}\x07learner', re.DOTALL)
LIGHTGBM = re.compile(rb"tree\r?\nversion=v\d")
TENSORFLOW = "Keras and TensorFlow models are not served; convert the model to ONNX with tf2onnx and upload that."
SERVED = (
    "a scikit-learn pickle, joblib or skops file, a torch .pth, .pt2 or TorchScript file, ONNX, an XGBoost or LightGBM "
    "model file, an MLflow model folder"
)
FOLDER_IN_ZIP = "folder in a zip"


@dataclass(frozen=True)
class Recognised:
    """The file of an artifact that holds the model, its format, and what the artifact says of itself.

    files: the tree in which `path` lies: the bundle, or a folder or zip archive in it.
    declared: options of a Source that came with the artifact; `made_with` and `notes` besides.
    """

    format: str
    path: str
    files: Files
    declared: Mapping[str, Any] = field(default_factory=dict)

    def source(self, options: Mapping[str, Any]) -> Source:
        """What an adapter loads; what a person declared counts more than what the artifact says."""
        return Source(self.files, self.path, {**self.declared, **options})

    def noted(self, findings: Findings) -> Findings:
        """The findings with the versions and notes that came with the artifact."""
        made_with = {**self.declared.get("made_with", {}), **findings.made_with}
        return replace(findings, made_with=made_with, warnings=[*self.declared.get("notes", ()), *findings.warnings])


def recognise(bundle: Files) -> Recognised:
    """The one model in the bundle.

    Raises:
        ArtifactRejected: there is none, or there are several.
    """
    return _recognise(bundle, is_zipped=False)


def _recognise(files: Files, *, is_zipped: bool) -> Recognised:
    folder = mlflow_folder.find(files)
    if folder is not None:
        return _of_mlflow(Subfolder(files, folder) if folder else files)
    found = {path: name for path in files.paths() if not is_code(path) and (name := _format(files, path))}
    config = detectron2_config.find(files)
    if config is not None:
        found = {path: "detectron2" for path, name in found.items() if name in ("torch", "sklearn")}
    if len(found) > 1:
        names = ", ".join(plain(path, 80) for path in list(found)[:5])
        raise ArtifactRejected("ambiguous_artifact", f"The upload holds several model files ({names}); send one.")
    if not found:
        raise _nothing_in(files)
    path, name = next(iter(found.items()))
    if name != FOLDER_IN_ZIP:
        return Recognised(name, path, files, {"config": config} if config else {})
    if is_zipped:
        raise ArtifactRejected(
            "unsupported_format", "The upload is a zip archive inside a zip archive; unpack it once."
        )
    return _recognise(ZipFolder(files.open(path), files.size(path)), is_zipped=True)


def _of_mlflow(files: Files) -> Recognised:
    model = mlflow_folder.read(files)
    if model.format is not None:
        return Recognised(model.format, model.path, files, model.declared)
    candidates = [path for path in files.paths() if path == model.path or path.startswith(f"{model.path}/")]
    found = {path: name for path in candidates if (name := _format(files, path)) not in (None, FOLDER_IN_ZIP)}
    if len(found) != 1:
        shown = plain(model.path, 80)
        raise ArtifactRejected("unsupported_format", f"The MLflow model names '{shown}', which is no model file here.")
    path, name = next(iter(found.items()))
    return Recognised(str(name), path, files, model.declared)


def _nothing_in(files: Files) -> ArtifactRejected:
    if all(files.size(path) == 0 for path in files.paths()):
        return ArtifactRejected("unreadable_artifact", "The file is empty.")
    return ArtifactRejected("unsupported_format", f"The upload holds no model in a known format ({SERVED}).")


def _format(files: Files, path: str) -> str | None:
    if path.rpartition("/")[2] == "saved_model.pb":
        raise ArtifactRejected("unsupported_format", TENSORFLOW)
    with files.open(path) as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(b"PK\x03\x04"):
        return _format_of_zip(files, path)
    if head.startswith(b"\x89HDF") or head[4:8] == b"TFL3":
        raise ArtifactRejected("unsupported_format", TENSORFLOW)
    if head.startswith(TORCH_LEGACY) or (is_pickle(head) and b"torch" in head):
        return "torch"
    if is_pickle(head) or head.startswith(COMPRESSED + ZLIB):
        return "sklearn"
    if XGBOOST.match(head):
        return "xgboost" if b"learner" in head else None
    if LIGHTGBM.match(head):
        return "lightgbm"
    return "onnx" if _is_onnx(head) else None


def is_pickle(head: bytes) -> bool:
    """Whether a file that begins so is a pickle of any protocol."""
    if head[:1] == b"\x80":
        return len(head) > 1 and head[1] in (2, 3, 4, 5)
    return OLD_PICKLE.match(head) is not None


def _is_onnx(head: bytes) -> bool:
    """A protobuf ModelProto begins with its first field, the small integer ir_version."""
    return (
        len(head) > 4 and head[0] == 0x08 and 0 < head[1] < 64 and head[2] in (0x12, 0x1A, 0x22, 0x2A, 0x32, 0x3A, 0x42)
    )


def _format_of_zip(files: Files, path: str) -> str | None:
    try:
        with files.open(path) as file, zipfile.ZipFile(file) as archive:
            names = archive.namelist()[:MAX_ZIP_ENTRIES]
    except DAMAGED as error:
        raise ArtifactRejected(
            "unreadable_artifact", "The file is a damaged zip archive; it may have been cut."
        ) from error
    return _format_of_names(set(names), {name.partition("/")[2] for name in names})


def _format_of_names(names: set[str], below: set[str]) -> str | None:
    """What a zip archive is by the names in it. torch puts one folder, named like the file, above all others."""
    if "schema.json" in names:
        return "skops"
    if "archive_format" in below and any(name.startswith("models/") for name in below):
        return "torch_export"
    if "data.pkl" in below:
        return "torchscript" if "constants.pkl" in below else "torch"
    if {"config.json", "model.weights.h5"} <= names or any(name.endswith("saved_model.pb") for name in names):
        raise ArtifactRejected("unsupported_format", TENSORFLOW)
    if names and all(name.endswith(".npy") for name in names):
        return None  # numpy's arrays
    return FOLDER_IN_ZIP if any(not name.endswith("/") for name in names) else None
