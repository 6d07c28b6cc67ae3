"""A version as far as answering needs to know it: small enough to be remembered, and whole without another query."""

from dataclasses import dataclass
from uuid import UUID

from common.errors import Conflict
from models_registry.loading import load_request, pool_key
from models_registry.models import ModelVersion
from runtimes.client import LoadRequest
from runtimes.signature import Signature
from tenants.scope import current_tenant


@dataclass(frozen=True)
class Served:
    """A ready version of the tenant that is in scope. pool_key: what the pool has it under."""

    pk: UUID
    number: int
    format: str
    signature: Signature
    pool_key: str

    @classmethod
    def of(cls, version: ModelVersion) -> "Served":
        """What answering needs to know of a ready version."""
        signature = Signature.from_json(version.signature)
        return cls(version.pk, version.number, version.format, signature, pool_key(current_tenant(), version))

    @property
    def weight(self) -> int:
        """How much there is to remember: names and classes, some 300 bytes each."""
        return 1 + len(self.signature.inputs) + len(self.signature.outputs) + len(self.signature.classes or ())

    def load_request(self) -> LoadRequest:
        """What loads it into a runner (`models_registry.loading`).

        Raises:
            Conflict: it was deleted meanwhile. Unavailable: its files cannot be had at the moment.
        """
        version = ModelVersion.objects.select_related("bundle").filter(pk=self.pk).first()
        if version is None:
            raise Conflict(f"Version {self.number} was deleted meanwhile.", code="version_deleted")
        return load_request(version)
