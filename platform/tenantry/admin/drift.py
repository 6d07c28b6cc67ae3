"""What versions are asked for beside the dataset that they were measured on: on a tenant's home and a version's page.

Datasets are training's and requests are inference's, which know nothing of each other; both are known here.
"""

from collections.abc import Iterable, Iterator, Sequence

import redis
from django.http import HttpRequest

from inference.admin.try_it import TriedVersionPages
from inference.drift import LEAST_ROWS, Moved, moved
from inference.sampling import recent, sampled_fields
from models_registry.admin.parts import version_link
from models_registry.models import Deployment, ModelVersion
from runtimes.errors import InvalidSignature
from runtimes.profiles import Profile
from runtimes.signature import Signature
from tenants.scope import current_tenant
from tenants.site.attention import Concern
from tenants.site.parts import Part, Table, label
from tenants.site.sites import tenant_site
from training.models import DatasetVersion

MOST_COMPARED = 8  # versions on the home
NAMED = 3  # columns in a sentence
NEEDED = ("pk", "model_id", "number", "signature", "measured_on")


def drift_of(versions: Iterable[ModelVersion]) -> dict[str, list[Moved]]:
    """How far what each of these versions is asked for has moved, by the hexadecimal digits of its id.

    A version that is asked too seldom, or was measured on no dataset that is still there, is not among them.

    Raises:
        redis.RedisError: what they were asked for cannot be had at the moment.
    """
    measured = {version.pk.hex: version for version in versions if version.measured_on.get("digest")}
    signatures = {key: signature for key, version in measured.items() if (signature := _signature(version))}
    found = recent(current_tenant().schema_name, signatures)
    asked = {key: rows for key, rows in found.items() if len(rows) >= LEAST_ROWS}
    digests = {measured[key].measured_on["digest"] for key in asked}
    profiles = dict(_profiles(digests)) if digests else {}
    return {
        key: moved(profile, sampled_fields(signatures[key]), rows)
        for key, rows in asked.items()
        if (profile := profiles.get(measured[key].measured_on["digest"]))
    }


def _signature(version: ModelVersion) -> Signature | None:
    try:
        return Signature.from_json(version.signature)
    except InvalidSignature:
        return None


def _profiles(digests: Iterable[str]) -> Iterator[tuple[str, Profile]]:
    kept = DatasetVersion.objects.filter(digest__in=digests).exclude(profile=None)
    for digest, profile in kept.values_list("digest", "profile"):
        yield digest, Profile.model_validate(profile)


@tenant_site.concern
def drifting_versions(request: HttpRequest) -> Iterator[Concern]:
    """Versions that serve and are asked for other rows than they were measured on."""
    serving = Deployment.objects.exclude(activation__version=None).order_by("-activation__created_at")
    versions = ModelVersion.objects.select_related("model").only(*NEEDED, "model__name")
    newest = serving.values("activation__version")[:MOST_COMPARED]
    measured = list(versions.filter(pk__in=newest).exclude(measured_on={}))
    try:
        found = drift_of(measured) if measured else {}
    except redis.RedisError:  # the home has more to show
        return
    for version in measured:
        changed = [one for one in found.get(version.pk.hex, ()) if one.is_changed]
        if changed:
            yield Concern(version_link(version), "drifts", _sentence(changed), tone="warning")


def _sentence(changed: Sequence[Moved]) -> str:
    named = ", ".join(one.column for one in changed[:NAMED])
    more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
    return f"What it was asked for in the last day is unlike the dataset that it was measured on, in {named}{more}."


class WatchedVersionPages(TriedVersionPages):
    """The versions' pages, with how far what they are asked for has moved."""

    def parts(self, request: HttpRequest, obj: ModelVersion) -> list[Part]:
        drift = _drift_part(obj)
        return [*super().parts(request, obj), *([drift] if drift else [])]


tenant_site.unregister(ModelVersion)
tenant_site.register(ModelVersion, WatchedVersionPages)


def _drift_part(version: ModelVersion) -> Part | None:
    """The columns, the one that has moved most first; None where nothing can be compared."""
    try:
        found = drift_of([version]).get(version.pk.hex)
    except redis.RedisError:
        return None
    if not found:
        return None
    rows = [
        (one.column, f"{one.index:.2f}", label("changed", "warning") if one.is_changed else "", one.then, one.now)
        for one in found
    ]
    notes = [
        f"Some rows of the last day beside {version.measured_on.get('dataset')}, on which it was measured. The index "
        "is the population stability index: from 0.25 on, a column is not what it was."
    ]
    return Part("Drift", Table(("Column", "Index", "", "Then", "Now"), rows), notes=notes)
