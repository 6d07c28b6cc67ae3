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

from runtimes import formats, serving
from runtimes.bundle import BadBundle, Bundle
from runtimes.errors import ArtifactRejected, InvalidSignature, ModelError, RuntimeFault, describe, plain, to_message
from runtimes.formats.recognition import recognise
from runtimes.libraries import BUILT_IN
from runtimes.limits import Limits
from runtimes.messages import Caps, Connection
from runtimes.origins import made_with
from runtimes.protocol import Predictor, Runtime, Source

CAPS = Caps(header_bytes=4 << 20, body_bytes=0)
SCORING_CAPS = Caps(header_bytes=4 << 20, body_bytes=64 << 20)  # predictions come in
Result = TypeVar("Result")
MISSING_ATTRIBUTE = re.compile(r"Can't get attribute|module '[^']*' has no attribute")
REFUSED = (PermissionError, BlockingIOError)


def run(places: Mapping[str, int], control: Connection) -> None:
    """Do what the host's first message asks; returns when the host or the client is gone."""
    order = control.receive().header
    if order["op"] == "serve":
        _serve(order, places, control)
    else:
        _work_once(order, Connection(places["channel"], SCORING_CAPS if order["op"] == "score" else CAPS), places)


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
    bundle = Bundle(bundle_fd)
    found = recognise(bundle)
    if found.format != order["format"]:
        raise ArtifactRejected("unsupported_format", f"The artifact is no {order['format']} file.")
    source = Source(bundle, found.path, order["options"])
    return _adapter(found.format).load(source)


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
    bundle = Bundle(bundle_fd)
    found = recognise(bundle)
    home = formats.library_set(found.format)
    if home != order["library_set"] and order["library_set"] in BUILT_IN:
        return {"needs": home}
    channel.send({"stage": "reading", "made_with": made_with(bundle, found.path)})
    source = Source(bundle, found.path, order["options"])
    findings = _adapter(found.format).inspect(source, lambda stage: channel.send({"stage": stage}))
    return findings.to_json()


def _work_on_table(order: Mapping[str, Any], channel: Connection, dataset_fd: int) -> dict[str, Any]:
    # Another set's runner first imports scikit-learn now, whose joblib asks for a folder for temporary files: any name
    # will do, as nothing can be written.
    tempfile.tempdir = tempfile.tempdir or "/"
    from runtimes import custom_fitting, fitting, profiling, scoring  # they import scikit-learn and pandas

    work: Mapping[str, Callable[[Mapping[str, Any], Connection, int], dict[str, Any]]] = {
        "fit": fitting.fit,
        "fit_custom": custom_fitting.fit,
        "profile": profiling.profile,
        "score": scoring.score,
    }
    return work[order["op"]](order, channel, dataset_fd)


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
    "fit": (_work_on_table, _explained_fit),
    "fit_custom": (_work_on_table, _explained_fit),
    "profile": (_work_on_table, _explained_fit),
    "score": (_work_on_table, _explained_fit),
}


def rejection(error: BaseException) -> ArtifactRejected:
    """The rejection that tells an uploader what an exception out of their artifact means."""
    told = describe(error, 300)
    if isinstance(error, BadBundle):
        return ArtifactRejected("unreadable_artifact", f"The packed upload is damaged: {told}")
    if isinstance(error, ModuleNotFoundError):
        name = plain(error.name or "unknown", 80)
        reason = (
            f"The artifact needs the module {name!r}, which is not installed here; upload a model that does without."
        )
        return ArtifactRejected("missing_module", reason)
    if isinstance(error, AttributeError) and MISSING_ATTRIBUTE.search(told):
        return ArtifactRejected("missing_module", f"The artifact needs code that did not travel with it ({told}).")
    if isinstance(error, MemoryError):
        return ArtifactRejected("load_memory", "Loading the artifact takes more memory than its budget.")
    if isinstance(error, REFUSED):
        return ArtifactRejected("confinement_violation", f"The artifact tried something that is forbidden ({told}).")
    return ArtifactRejected("unreadable_artifact", f"The artifact could not be loaded ({told}).")
