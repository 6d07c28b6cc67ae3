"""What the model host needs to load a version."""

from collections.abc import Mapping
from dataclasses import replace

from django.conf import settings

from models_registry.models import Activation, ModelVersion
from models_registry.packs import open_pack
from runtimes.client import LoadRequest
from runtimes.limits import Limits
from tenants.models import Tenant
from tenants.scope import current_tenant

DECLARED_OPTIONS = ("architecture", "labels", "library_set")


def pool_key(tenant: Tenant, version: ModelVersion) -> str:
    """The version's key in the pool: of this tenant alone, and never used again, whatever its names become."""
    return f"{tenant.uuid.hex}/{version.id.hex}"


def load_request(version: ModelVersion, limits: Mapping[str, int | float] | None = None) -> LoadRequest:
    """What loads this version into a runner. Blocks while its files are fetched; its taker closes it.

    limits: by name, where they are not those that the model's newest activation has.

    Raises:
        Unavailable: its files cannot be had at the moment.
    """
    return LoadRequest(
        bundle_fd=open_pack(version.bundle),
        tenant=current_tenant().uuid.hex,
        format=version.format,
        options=load_options(version),
        limits=limits_under(_limits_now(version) if limits is None else limits),
    )


def limits_under(said: Mapping[str, int | float]) -> Limits:
    """The limits of a runner: what was said, the usual for the rest, and nowhere more than the operator allows."""
    usual, bounds = Limits(), settings.MODEL_LIMITS
    return replace(usual, **{name: min(said.get(name, getattr(usual, name)), bounds[name]) for name in bounds})


def _limits_now(version: ModelVersion) -> Mapping[str, int | float]:
    newest = Activation.objects.filter(model=version.model_id).values_list("routing", flat=True).first()
    return (newest or {}).get("limits") or {}


def load_options(version: ModelVersion) -> dict[str, object]:
    """What was declared or found about the version that its loader needs to know."""
    declared = {name: version.metadata[name] for name in DECLARED_OPTIONS if name in version.metadata}
    signature = version.signature or version.metadata.get("signature")
    classes = (version.signature or {}).get("classes") or version.metadata.get("labels")
    return declared | {"signature": signature, "classes": classes}
