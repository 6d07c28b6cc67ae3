"""The confined side: loads one artifact and answers predictions, or does one inspection or fit and ends.

It starts confined (`runtimes.zygote`), with descriptors and nothing else: `control` to the host, `bundle`, and either a
`listener` on which clients connect or a `channel` to the one client it works for.
"""

from __future__ import annotations

import re
import select
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from runtimes import bundled_code, coco_files, formats, scanning, serving
from runtimes.bundle import BadBundle, Bundle
from runtimes.errors import (
    ArtifactRejected,
    InvalidSignature,
    ModelError,
    RuntimeFault,
    describe,
    lacks_memory,
    plain,
    to_message,
)
from runtimes.formats import boosters
from runtimes.formats.recognition import Recognised, recognise
from runtimes.libraries import BUILT_IN
from runtimes.limits import Limits
from runtimes.messages import Caps, Connection, EndOfStream
from runtimes.origins import made_with
from runtimes.page_limits import TOO_LARGE, UNREADABLE
from runtimes.protocol import Predictor, Runtime, Source

CAPS = Caps(header_bytes=4 << 20, body_bytes=0)
ANSWERED = ("score", "tabulate")  # predictions come in
ON_IMAGES = ("fit", "profile")
ANSWERED_CAPS = Caps(header_bytes=4 << 20, body_bytes=64 << 20)
Result = TypeVar("Result")
MISSING_ATTRIBUTE = re.compile(r"Can't get attribute|module '[^']*' has no attribute")
REFUSED = (PermissionError, BlockingIOError)


def run(places: Mapping[str, int], control: Connection) -> None:
    """Do what the host's first message asks; returns when the host or the client is gone."""
    order = control.receive().header
    if order["op"] == "serve":
        _serve(order, places, control)
    else:
        _work_once(order, Connection(places["channel"], ANSWERED_CAPS if order["op"] in ANSWERED else CAPS), places)


def _serve(order: Mapping[str, Any], places: Mapping[str, int], control: Connection) -> None:
    try:
        predictor = _explained(lambda: _load(order, places["bundle"]))
    except RuntimeFault as fault:
        control.send({"loaded": False, "fault": to_message(fault)})
        return
    control.send({"loaded": True})
    limits = Limits.from_json(order["limits"])
    identity = serving.Identity(order["key"], order["generation"])
    serving.serve(predictor, places["listener"], control, limits, identity)


def _load(order: Mapping[str, Any], bundle_fd: int) -> Predictor:
    found = recognise(Bundle(bundle_fd))
    if found.format != order["format"]:
        raise ArtifactRejected("unsupported_format", f"The artifact is no {order['format']} file.")
    return _adapter(found.format).load(_source(found, order["options"]))


def _source(found: Recognised, options: Mapping[str, Any]) -> Source:
    """What the adapter loads, with the code that travels with it importable from now on."""
    bundled_code.install(found.files)
    return found.source(options)


def _adapter(format_name: str) -> Runtime:
    try:
        return formats.runtime(format_name)
    except ImportError as error:
        name = plain(error.name or "a library", 80)
        reason = f"The library set has no {name}, which a {format_name} file needs; name another library_set, or none."
        raise ArtifactRejected("library_set_lacks", reason) from error


def _work_once(order: Mapping[str, Any], channel: Connection, places: Mapping[str, int]) -> None:
    work, explained = WORK[order["op"]]
    try:
        result = explained(lambda: work(order, channel, places["bundle"]))
    except RuntimeFault as fault:
        channel.send({"fault": to_message(fault)})
    else:
        channel.send({"result": result})
    select.select([places["control"]], [], [])  # stay until the host has measured and ends this process


def _inspect(order: Mapping[str, Any], channel: Connection, bundle_fd: int) -> dict[str, Any]:
    channel.send({"stage": "recognising"})
    found = recognise(Bundle(bundle_fd))
    home = formats.library_set(found.format)
    if home != order["library_set"] and order["library_set"] in BUILT_IN:
        return {"needs": home}
    named = {**found.declared.get("made_with", {}), **made_with(found.files, found.path)}
    channel.send({"stage": "reading", "made_with": named})
    adapter = _adapter(found.format)
    source = _source(found, {**order["options"], "library_set": order["library_set"]})
    return found.noted(adapter.inspect(source, lambda stage: channel.send({"stage": stage}))).to_json()


def _scan(order: Mapping[str, Any], channel: Connection, bundle_fd: int) -> dict[str, Any]:
    bundle = Bundle(bundle_fd)
    try:
        return scanning.scan(recognise(bundle).files)
    except ArtifactRejected:  # what is no model may be scanned all the same
        return scanning.scan(bundle)


def _compile(order: Mapping[str, Any], channel: Connection, bundle_fd: int) -> dict[str, Any]:
    tempfile.tempdir = tempfile.tempdir or "/"
    original = _load(order, bundle_fd)
    try:
        from runtimes.compilation import compiling  # it imports ONNX Runtime, which a torch runner seldom needs
    except ImportError as error:
        raise ArtifactRejected("library_set_lacks", f"The library set has no {plain(error.name, 80)}.") from error
    return compiling.compile_predictor(original, order["options"], order["limits"]["compile_seconds"], channel)


def _work_on_table(order: Mapping[str, Any], channel: Connection, dataset_fd: int) -> dict[str, Any]:
    if order.get("format") == coco_files.FORMAT and order["op"] in ON_IMAGES:
        return _work_on_images(order, channel, dataset_fd)
    # Another set's runner first imports scikit-learn now, whose joblib asks for a folder for temporary files: any name
    # will do, as nothing can be written.
    tempfile.tempdir = tempfile.tempdir or "/"
    from runtimes import custom_fitting, fitting, profiling, scoring, tabulating  # they import scikit-learn and pandas

    work: Mapping[str, Callable[[Mapping[str, Any], Connection, int], dict[str, Any]]] = {
        "fit": fitting.fit,
        "fit_custom": custom_fitting.fit,
        "profile": profiling.profile,
        "score": scoring.score,
        "tabulate": tabulating.tabulate,
    }
    return work[order["op"]](order, channel, dataset_fd)


def _work_on_images(order: Mapping[str, Any], channel: Connection, dataset_fd: int) -> dict[str, Any]:
    if order["op"] == "fit":
        from runtimes import detector_fitting  # it imports torch

        return detector_fitting.fit(order, channel, dataset_fd)
    from runtimes import profiling  # it imports pandas

    return profiling.profile_images(order, channel, dataset_fd)


def _work_on_pages(order: Mapping[str, Any], channel: Connection, document_fd: int) -> dict[str, Any]:
    from runtimes import page_rendering  # it imports PDFium and Pillow, which other sets' runners may lack

    work: Mapping[str, Callable[[Mapping[str, Any], Connection, int], dict[str, Any]]] = {
        "pages": page_rendering.serve_pages,
        "draw": page_rendering.draw,
        "crop": page_rendering.crop,
    }
    return work[order["op"]](order, channel, document_fd)


def _explained_pages(work: Callable[[], Result]) -> Result:
    """The result of work on a document, or the reason of its failure as a ModelError."""
    try:
        return work()
    except (RuntimeFault, EndOfStream):
        raise
    except MemoryError as error:
        raise ModelError("Reading the document takes more memory than its budget.", TOO_LARGE) from error
    except Exception as error:
        raise ModelError(f"The document cannot be read ({describe(error, 200)}).", UNREADABLE) from error


def _explained_fit(work: Callable[[], Result]) -> Result:
    """The result of a fit, or the reason of its failure as a RuntimeFault."""
    try:
        return work()
    except RuntimeFault:
        raise
    except MemoryError as error:
        raise ModelError("The fit took more memory than its budget.", "fit_memory") from error
    except Exception as error:
        raise ModelError(f"The fit failed ({describe(error, 300)}).", "fit_failed") from error


def _explained(work: Callable[[], Result]) -> Result:
    """The result of running an artifact's code, or the reason of its failure as a RuntimeFault."""
    try:
        return work()
    except RuntimeFault as fault:
        if isinstance(fault, InvalidSignature):
            raise ArtifactRejected(fault.code, fault.message) from fault
        raise
    except BaseException as error:  # an artifact may raise anything, SystemExit included
        raise rejection(error) from error


# what a runner may be asked once, and how its failures are told
WORK: Mapping[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "inspect": (_inspect, _explained),
    "scan": (_scan, _explained),
    "compile": (_compile, _explained),
    "fit": (_work_on_table, _explained_fit),
    "fit_custom": (_work_on_table, _explained_fit),
    "profile": (_work_on_table, _explained_fit),
    "score": (_work_on_table, _explained_fit),
    "tabulate": (_work_on_table, _explained_fit),
    "pages": (_work_on_pages, _explained_pages),
    "draw": (_work_on_pages, _explained_pages),
    "crop": (_work_on_pages, _explained_pages),
}


def rejection(error: BaseException) -> ArtifactRejected:
    """The rejection that tells an uploader what an exception out of their artifact means."""
    told = describe(error, 300)
    if isinstance(error, BadBundle):
        return ArtifactRejected("unreadable_artifact", f"The packed upload is damaged: {told}")
    if isinstance(error, ModuleNotFoundError):
        return _missing_module(plain(error.name or "unknown", 80))
    if isinstance(error, AttributeError) and MISSING_ATTRIBUTE.search(told):
        return ArtifactRejected("missing_module", _missing_attribute(told))
    if lacks_memory(error):
        return ArtifactRejected("load_memory", "Loading the artifact takes more memory than its budget.")
    if isinstance(error, REFUSED):
        return ArtifactRejected("confinement_violation", f"The artifact tried something that is forbidden ({told}).")
    return ArtifactRejected("unreadable_artifact", f"The artifact could not be loaded ({told}).")


def _missing_module(name: str) -> ArtifactRejected:
    module = name.partition(".")[0]
    if module in boosters.RUNTIMES:
        return boosters.lacking(module)
    reason = (
        f"The artifact needs the module '{name}', which is not installed here; upload {module}.py beside the model, or "
        "its package in a folder code/."
    )
    return ArtifactRejected("missing_module", reason)


def _missing_attribute(told: str) -> str:
    if "__main__" in told:
        advice = "it was defined in a notebook or script: put it into model.py and upload that beside the model"
    else:
        advice = "upload the module that defines it beside the model, or in a folder code/"
    return f"The artifact needs code that did not travel with it ({told}); {advice}."
