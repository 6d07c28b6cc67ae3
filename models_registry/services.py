"""What a caller can ask for about models, versions, aliases and what serves."""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from common.errors import Conflict, Invalid, NotFound
from models_registry import selection
from models_registry.blobs import IncomingFile, store_bundle
from models_registry.deployments import Change, reroute
from models_registry.eviction import evict_once_committed
from models_registry.execution import INSPECT, INSPECT_ATTEMPTS
from models_registry.history import locked, newest, routing_of, serving
from models_registry.loading import pool_key
from models_registry.metadata import VersionMetadata
from models_registry.models import (
    Activation,
    Alias,
    Bundle,
    Deployment,
    ModelVersion,
    RegisteredModel,
    is_name,
)
from models_registry.quota import claim_room
from models_registry.routing import Routing
from models_registry.usage import open_jobs_of, part_of
from tenants.audit import record
from tenants.jobs import submit
from tenants.models import Tenant
from tenants.scope import current_tenant


@transaction.atomic
def create_model(
    *, name: str, actor: str, description: str = "", task: str = "", tags: Mapping[str, str] | None = None
) -> RegisteredModel:
    """A new registered model without versions.

    Raises:
        Invalid: the name is none.
        Conflict: it is taken.
    """
    if not is_name(name):
        raise Invalid(
            "A name is 1 to 100 of A-Z, a-z, 0-9, '.', '_', '-', and not '.' or '..'.", fields={"name": name[:100]}
        )
    try:
        with transaction.atomic():
            model = RegisteredModel.objects.create(name=name, description=description, task=task, tags=dict(tags or {}))
    except IntegrityError as error:
        raise Conflict(f"There is a model '{name}' already.", code="already_exists") from error
    record(actor=actor, action="model.create", target=name)
    return model


@transaction.atomic
def change_model(*, model: RegisteredModel, actor: str, **changes: Any) -> RegisteredModel:
    """The model with its description, task or tags changed."""
    for name, value in changes.items():
        setattr(model, name, value)
    model.save(update_fields=[*changes, "updated_at"])
    record(actor=actor, action="model.change", target=model.name, changed=sorted(changes))
    return model


@transaction.atomic
def delete_model(*, model: RegisteredModel, actor: str) -> None:
    """Remove a model with its versions, aliases and history, unless one of its versions is in use.

    Raises:
        Conflict: a version serves, or an open job uses one.
    """
    locked(model)
    active = serving(model)
    if active is not None:
        raise Conflict(
            f"Version {active.version_number} of {model.name} is active; deactivate the model first.",
            code="version_active",
        )
    versions = list(model.versions.select_for_update())
    for version in versions:
        _refuse_if_used(version, model)
    keys = [pool_key(current_tenant(), version) for version in versions]
    Deployment.objects.filter(model=model).delete()
    model.aliases.all().delete()
    model.delete()
    Tenant.objects.filter(pk=current_tenant().pk, default_model=model.name).update(default_model="")
    record(actor=actor, action="model.delete", target=model.name, versions=[version.number for version in versions])
    evict_once_committed(keys)


def register_version(
    *,
    model_name: str,
    files: Iterable[IncomingFile] | Bundle,
    metadata: VersionMetadata | None = None,
    actor: str,
    create: bool = False,
    source_run: uuid.UUID | None = None,
    metrics_measured: Mapping[str, float] | None = None,
    measured_on: Mapping[str, str] | None = None,
) -> ModelVersion:
    """The next version of a model, over these files, waiting for its inspection.

    Give files outside any transaction: a file's row must stand before its bytes do. To register inside one, call
    `blobs.store_bundle` before it begins and give the bundle.

    create: make the model if there is none. measured_on: the `dataset` and `digest` of the measured metrics.

    Raises:
        NotFound: there is no such model.
        Invalid: no file, or a path that no bundle may have.
        TooLarge, Denied: over the tenant's quota.
        Unavailable: the storage failed.
    """
    if not create:
        _model_named(model_name)
    bundle = files if isinstance(files, Bundle) else store_bundle(files)
    with transaction.atomic():
        model = _next_number(model_name, actor, create)
        claim_room(bundle)
        version = _new_version(model, bundle, metadata or VersionMetadata(), actor)
        version.source_run = source_run
        version.metrics_measured = dict(metrics_measured or {})
        version.measured_on = dict(measured_on or {})
        version.inspection_job = submit(INSPECT, str(version.pk), max_attempts=INSPECT_ATTEMPTS)
        version.save()
        run = str(source_run) if source_run else None
        record(actor=actor, action="version.upload", target=str(version), digest=bundle.digest, run=run)
    return version


@transaction.atomic
def change_version(*, version: ModelVersion, actor: str, **changes: Any) -> ModelVersion:
    """The version with its description, tags or reported metrics changed."""
    for name, value in changes.items():
        setattr(version, name, value)
    version.save(update_fields=list(changes))
    record(actor=actor, action="version.change", target=str(version), changed=sorted(changes))
    return version


def hold_version(key: uuid.UUID, name: str) -> None:
    """Lock a version until the row that points at it is committed: a delete waits, then finds the open job.

    name: what the caller knows it by.

    Raises:
        Conflict: it was deleted.
    """
    if not ModelVersion.objects.select_for_update(no_key=True).filter(pk=key).exists():
        raise Conflict(f"{name} was deleted.", code="version_deleted")


@transaction.atomic
def delete_version(*, version: ModelVersion, actor: str) -> None:
    """Remove a version that nothing uses; its files follow once no other version has them.

    Raises:
        Conflict: it serves, an alias names it, or an open job uses it.
    """
    model = locked(version.model)
    if part := part_of(version.number, routing_of(newest(model))):
        raise Conflict(f"{version} {part}; change the deployment or deactivate the model first.", code="version_active")
    if names := list(version.aliases.values_list("name", flat=True)):
        raise Conflict(f"{version} has the aliases {', '.join(names)}; remove them first.", code="version_aliased")
    # Locked, so that what is being queued for it (`hold_version`) is among its open jobs, or finds it gone.
    list(ModelVersion.objects.select_for_update().filter(pk=version.pk).values_list("pk"))
    _refuse_if_used(version, model)
    number, key = version.number, pool_key(current_tenant(), version)
    try:
        version.delete()
    except ProtectedError as error:
        raise Conflict(f"{model.name} v{number} is still used elsewhere.", code="version_in_use") from error
    record(actor=actor, action="version.delete", target=f"{model.name} v{number}")
    evict_once_committed([key])


def activate(
    *,
    version: ModelVersion,
    actor: str,
    reason: str = "",
    expected_version: int | None = None,
    criteria: Mapping[str, Any] | None = None,
) -> Activation:
    """The activation that has the version alone serve: a new one, or the present one if it does so already.

    Lane, pin, limits and shadow stay. Blocks until one machine has it in memory (`deployments.reroute`).

    expected_version: the number of the version that must be serving now, or 0 for nothing; None: whatever serves.

    Raises:
        Conflict: the version is not ready or cannot be loaded, or another one serves than was expected.
        Unavailable: no machine could load it in time.
    """
    change = Change("version.activate", actor, reason=reason, expected_version=expected_version, criteria=criteria)
    return reroute(version.model, lambda before: before.serving(version.number), change)


def deactivate(
    *, model: RegisteredModel, actor: str, reason: str = "", expected_version: int | None = None
) -> Activation:
    """The activation that has nothing serve: a new one, or the present one if it is so already.

    Raises:
        Conflict: nothing ever served, or another version serves than was expected.
    """
    if newest(model) is None:
        raise Conflict(f"No version of {model.name} was ever active.", code="no_active_version")
    change = Change("model.deactivate", actor, model.name, reason, expected_version)
    return reroute(model, Routing.emptied, change)


def rollback(*, model: RegisteredModel, actor: str, reason: str = "") -> Activation:
    """Have the model serve what it served before: a new activation that copies the routing of the last one which sent
    requests to other versions, or in other shares.

    After a deactivation, that is the one before it. Twice in a row, it is back where it began.

    Raises:
        Conflict: nothing served before, or a version that did is gone. And what `reroute` raises.
    """

    def plan(now: Routing) -> Routing:
        return served_before(model, now)

    return reroute(model, plan, Change("model.rollback", actor, reason=reason))


def served_before(model: RegisteredModel, now: Routing) -> Routing:
    """The routing that a rollback would bring back.

    Raises:
        Conflict: there is none, or a version of it is gone.
    """
    served = Activation.objects.filter(model=model, version_number__isnull=False)
    before = next((one for activation in served.iterator() if (one := routing_of(activation)).split != now.split), None)
    if before is None:
        raise Conflict(f"{model.name} served nothing before that it could go back to.", code="nothing_to_roll_back")
    there = set(model.versions.filter(number__in=before.versions).values_list("number", flat=True))
    if gone := [number for number in before.versions if number not in there]:
        raise Conflict(
            f"Version {gone[0]} of {model.name}, which was routed to before, was deleted; activate another.",
            code="version_deleted",
        )
    return before


def activate_best(
    *,
    actor: str,
    metric: str,
    direction: str,
    model: RegisteredModel | None = None,
    task: str = "",
    dataset: str = "",
    reason: str = "",
) -> tuple[selection.Choice, Activation]:
    """Have the best version by a metric serve: of one model, or of all models for a task (then the default model).

    Returns the choice with its explanation, and the activation.

    Raises:
        Conflict: no ready version has the metric.
    """
    versions = ModelVersion.objects.filter(model=model) if model else ModelVersion.objects.filter(task=task)
    choice = selection.choose(versions, metric=metric, direction=direction, dataset=dataset)
    best = choice.best.version
    activation = activate(
        version=best, actor=actor, reason=reason or choice.explanation[:500], criteria=choice.criteria()
    )
    if model is None:
        _make_default(best.model.name, actor)
    return choice, activation


@transaction.atomic
def _make_default(name: str, actor: str) -> None:
    Tenant.objects.filter(pk=current_tenant().pk).update(default_model=name)
    current_tenant().default_model = name
    record(actor=actor, action="settings.change", target="default_model", default_model=name)


@transaction.atomic
def set_alias(*, version: ModelVersion, name: str, actor: str) -> tuple[Alias, bool]:
    """The alias, naming this version from now on, and whether it is new.

    Raises:
        Invalid: the name is none.
        NotFound: the version was deleted.
    """
    if not is_name(name):
        raise Invalid("An alias is 1 to 100 of A-Z, a-z, 0-9, '.', '_', '-'.", fields={"alias": name[:100]})
    model = locked(version.model)
    version = _present(version)
    alias, is_new = Alias.objects.update_or_create(model=model, name=name, defaults={"version": version})
    record(actor=actor, action="alias.set", target=f"{version.model.name}@{name}", version=version.number)
    return alias, is_new


@transaction.atomic
def delete_alias(*, alias: Alias, actor: str) -> None:
    """Remove an alias; its version stays."""
    record(actor=actor, action="alias.delete", target=str(alias), version=alias.version.number)
    alias.delete()


def _model_named(name: str) -> RegisteredModel:
    model = RegisteredModel.objects.filter(name=name).first()
    if model is None:
        raise NotFound(f"There is no model '{name[:100]}'.")
    return model


def _present(version: ModelVersion) -> ModelVersion:
    """The version as it is now, its model's row being locked."""
    found = ModelVersion.objects.select_related("model").filter(pk=version.pk).first()
    if found is None:
        raise NotFound(f"{version} was deleted.")
    return found


def _next_number(name: str, actor: str, create: bool) -> RegisteredModel:
    """The locked model, with one more in `last_number`."""
    locked = RegisteredModel.objects.select_for_update().filter(name=name)
    model = locked.first()
    if model is None and create:
        try:
            with transaction.atomic():
                create_model(name=name, actor=actor)
        except Conflict:  # somebody else was faster
            pass
        model = locked.first()
    if model is None:
        raise NotFound(f"There is no model '{name[:100]}'.")
    model.last_number += 1
    model.save(update_fields=["last_number", "updated_at"])
    return model


def _new_version(model: RegisteredModel, bundle: Bundle, metadata: VersionMetadata, actor: str) -> ModelVersion:
    return ModelVersion(
        model=model,
        number=model.last_number,
        bundle=bundle,
        metadata=dict(metadata.declared),
        metrics_reported=dict(metadata.metrics),
        params=dict(metadata.params),
        tags=dict(metadata.tags),
        description=metadata.description,
        created_by=actor,
    )


def _refuse_if_used(version: ModelVersion, model: RegisteredModel) -> None:
    if jobs := open_jobs_of(version):
        named = ", ".join(f"{job.kind} {job.pk}" for job in jobs[:5])
        raise Conflict(f"{model.name} v{version.number} is used by open jobs: {named}.", code="version_in_use")
