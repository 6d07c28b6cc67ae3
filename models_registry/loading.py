"""What the model host needs to load a version."""

from models_registry.models import ModelVersion
from models_registry.packs import open_pack
from runtimes.client import LoadRequest
from runtimes.limits import Limits
from tenants.models import Tenant
from tenants.scope import current_tenant

DECLARED_OPTIONS = ("architecture", "labels", "library_set")


def pool_key(tenant: Tenant, version: ModelVersion) -> str:
    """The version's key in the pool: of this tenant alone, and never used again, whatever its names become."""
    return f"{tenant.uuid.hex}/{version.id.hex}"


def load_request(version: ModelVersion) -> LoadRequest:
    """What loads this version into a runner. Blocks while its files are fetched; its taker closes it.

    Raises:
        Unavailable: its files cannot be had at the moment.
    """
    return LoadRequest(
        bundle_fd=open_pack(version.bundle),
        tenant=current_tenant().uuid.hex,
        format=version.format,
        options=load_options(version),
        limits=Limits(),
    )


def load_options(version: ModelVersion) -> dict[str, object]:
    """What was declared or found about the version that its loader needs to know."""
    declared = {name: version.metadata[name] for name in DECLARED_OPTIONS if name in version.metadata}
    signature = version.signature or version.metadata.get("signature")
    classes = (version.signature or {}).get("classes") or version.metadata.get("labels")
    return declared | {"signature": signature, "classes": classes}
