"""How much the current tenant may upload and keep."""

from common.errors import Denied, TooLarge
from models_registry.blobs import named_bundles, used_bytes
from models_registry.models import Bundle
from tenants.models import Tenant
from tenants.scope import current_tenant

ENVELOPE_BYTES = 4 << 20  # what multipart boundaries, headers and metadata may add to the files of one request


def check_room(size_bytes: int) -> None:
    """Go on only if the tenant may upload this many bytes at once, and has room for them.

    Raises:
        TooLarge: more than one upload may have.
        Denied: more than is left of the tenant's storage.
    """
    tenant = current_tenant()
    if size_bytes > tenant.max_artifact_bytes:
        raise TooLarge(
            f"The upload has {size_bytes} bytes; this tenant's uploads have at most {tenant.max_artifact_bytes}."
        )
    left = max(0, tenant.max_storage_bytes - used_bytes())
    if size_bytes > left:
        raise Denied(
            f"The upload has {size_bytes} bytes, and {left} of this tenant's {tenant.max_storage_bytes} are left; "
            "delete versions that are no longer needed, or ask the operator for more.",
            code="quota_exceeded",
        )


def claim_room(bundle: Bundle) -> None:
    """Go on only if there is room for this bundle, in the transaction that names it.

    The tenant's row is held until that ends: of uploads at once, none counts on room that another one takes.

    Raises:
        TooLarge, Denied: as `check_room` does; never for a bundle that something names already.
    """
    Tenant.objects.select_for_update(no_key=True).get(pk=current_tenant().pk)
    if not Bundle.objects.filter(named_bundles(), pk=bundle.pk).exists():
        check_room(bundle.size_bytes)


def check_announced(content_length: int) -> None:
    """The same for a request whose body was not read yet, by its Content-Length, which counts a little more."""
    check_room(max(0, content_length - ENVELOPE_BYTES))
