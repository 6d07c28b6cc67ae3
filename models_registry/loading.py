"""What the model host needs to load a version."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from django.conf import settings

from common.errors import Unavailable
from models_registry.models import Activation, Bundle, ModelVersion
from models_registry.packs import open_pack
from runtimes.client import LoadRequest
from runtimes.limits import Limits
from tenants.models import Tenant
from tenants.scope import current_tenant

COMPILED_FORMAT = "onnx"
DECLARED_OPTIONS = ("architecture", "labels", "library_set", "detection")


def pool_key(tenant: Tenant, version: ModelVersion) -> str:
    """The version's key in the pool: of this tenant alone, and never used again, whatever its names become."""
    return f"{tenant.uuid.hex}/{version.id.hex}"


def load_request(version: ModelVersion, limits: Mapping[str, int | float] | None = None) -> LoadRequest:
    """What loads this version into a runner: its compiled form, and the original where there is none or it cannot be
    loaded. Blocks while its files are fetched; its taker closes it.

    limits: by name, where they are not those that the model's newest activation has.

    Raises:
        Unavailable: its files cannot be had at the moment.
    """
    under = limits_under(_limits_now(version) if limits is None else limits)
    original = partial(_load, version.bundle, version.format, load_options(version), under)
    if version.compiled_bundle is None:
        return original()
    try:
        return _load(version.compiled_bundle, COMPILED_FORMAT, compiled_options(version), under, original)
    except Unavailable:  # of one file that cannot be had, the other may
        return original()


def _load(
    bundle: Bundle,
    format_name: str,
    options: Mapping[str, object],
    limits: Limits,
    fallback: Callable[[], LoadRequest] | None = None,
) -> LoadRequest:
    return LoadRequest(open_pack(bundle), current_tenant().uuid.hex, format_name, options, limits, fallback)


def limits_under(said: Mapping[str, int | float]) -> Limits:
    """The limits of a runner: what was said, the usual for the rest, and nowhere more than the operator allows."""
    usual, bounds = Limits(), settings.MODEL_LIMITS
    return replace(usual, **{name: min(said.get(name, getattr(usual, name)), bounds[name]) for name in bounds})


def _limits_now(version: ModelVersion) -> Mapping[str, int | float]:
    newest = Activation.objects.filter(model=version.model_id).values_list("routing", flat=True).first()
    return (newest or {}).get("limits") or {}


def compiled_options(version: ModelVersion) -> dict[str, object]:
    """What the loader of the compiled form needs to know: it has no classes or layers of its own."""
    return {"signature": version.signature, "is_compiled": True}


def load_options(version: ModelVersion) -> dict[str, object]:
    """What was declared or found about the version that its loader needs to know."""
    declared = {name: version.metadata[name] for name in DECLARED_OPTIONS if name in version.metadata}
    signature = version.signature or version.metadata.get("signature")
    classes = (version.signature or {}).get("classes") or version.metadata.get("labels")
    return declared | {"signature": signature, "classes": classes}
