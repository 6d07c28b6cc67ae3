"""A version's compiled form: made when it is inspected, kept beside the original, never a reason to reject it."""

import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from django.conf import settings

from common.errors import Denied, TooLarge, Unavailable
from models_registry import packs
from models_registry.blobs import IncomingFile, store_bundle
from models_registry.loading import COMPILED_FORMAT, load_options
from models_registry.models import Bundle, ModelVersion
from models_registry.quota import check_room, claim_room
from models_registry.spooling import spool_folder
from runtimes import errors as faults
from runtimes.client import HostClient, Inspection
from runtimes.compilation.requesting import NOT_NEEDED, Compilation, not_compiled
from runtimes.limits import Limits
from tenants.models import JobLost

log = logging.getLogger(__name__)

FILE_NAME = "model.onnx"
NO_ROOM = "There is no room for the compiled form in this tenant's storage"
BROKE = "It broke on our side"
TURNED_OFF = "Compiling is turned off here"


@dataclass(frozen=True)
class CompiledForm:
    """The verdict on compiling a version, and the stored graph if there is one."""

    verdict: Compilation
    bundle: Bundle | None = None

    def with_room(self) -> "CompiledForm":
        """This, or a verdict without its bundle if the tenant has no room for it; in the transaction that names it."""
        try:
            if self.bundle is not None:
                claim_room(self.bundle)
        except (Denied, TooLarge):
            return CompiledForm(not_compiled(NO_ROOM))
        return self

    def columns(self) -> dict[str, Any]:
        """What the version's row keeps of it."""
        return {"compilation": self.verdict.to_json(), "compiled_bundle": self.bundle}


def compile_version(version: ModelVersion, inspection: Inspection, on_stage: Callable[[str], None]) -> CompiledForm:
    """The version's compiled form, stored, or why there is none. Not to be called inside a transaction.

    Raises:
        Unavailable: the model host or the storage is away. JobLost: another worker has the job.
    """
    try:
        return _compile_version(version, inspection, on_stage)
    except (Unavailable, JobLost):
        raise
    except Exception:  # a sound artifact must not be rejected for a fault of ours
        log.exception("compilation_broke", extra={"version": version.pk.hex})
        return CompiledForm(not_compiled(BROKE))


def _compile_version(version: ModelVersion, inspection: Inspection, on_stage: Callable[[str], None]) -> CompiledForm:
    if inspection.format == COMPILED_FORMAT:
        return CompiledForm(not_compiled(NOT_NEEDED))
    if not settings.COMPILE_SECONDS:
        return CompiledForm(not_compiled(TURNED_OFF))
    with tempfile.TemporaryFile(dir=spool_folder()) as out:
        verdict = _compiled(version, inspection, out, on_stage)
        if not verdict.is_compiled:
            return CompiledForm(verdict)
        try:
            check_room(out.tell())
        except (Denied, TooLarge):
            return CompiledForm(not_compiled(NO_ROOM))
        out.seek(0)
        return CompiledForm(verdict, store_bundle([IncomingFile(FILE_NAME, out)]))


def _compiled(
    version: ModelVersion, inspection: Inspection, out: BinaryIO, on_stage: Callable[[str], None]
) -> Compilation:
    declared = {name: version.metadata[name] for name in ("input_example",) if name in version.metadata}
    options = {**load_options(version), **declared, "signature": inspection.signature.to_json()}
    bundle_fd = packs.open_pack(version.bundle)
    try:
        return HostClient(settings.MODELS_SOCKET).compile(
            bundle_fd,
            format_name=inspection.format,
            options=options,
            out=out,
            limits=Limits(compile_seconds=settings.COMPILE_SECONDS),
            on_stage=on_stage,
        )
    except (faults.HostUnavailable, faults.PoolFull, faults.ConfinementUnavailable) as fault:
        raise Unavailable(fault.message, code=fault.code) from fault
    finally:
        os.close(bundle_fd)
