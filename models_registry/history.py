"""A model's history of activations; its newest says what serves. Changes of one model come one after another: they hold
the lock of its row."""

from collections.abc import Mapping
from typing import Any

from common.errors import Conflict, NotFound
from models_registry.models import Activation, Deployment, ModelVersion, RegisteredModel, VersionState
from models_registry.routing import Routing

NOTHING = 0  # the `expected_version` of who expects that nothing serves


def locked(model: RegisteredModel) -> RegisteredModel:
    """The model's row, held until the transaction ends.

    Raises:
        NotFound: it was deleted.
    """
    found = RegisteredModel.objects.select_for_update().filter(pk=model.pk).first()
    if found is None:
        raise NotFound(f"There is no model '{model.name}' any more.")
    return found


def newest(model: RegisteredModel) -> Activation | None:
    """The newest activation, if there ever was one."""
    return Activation.objects.filter(model=model).select_related("version").first()


def serving(model: RegisteredModel) -> Activation | None:
    """The newest activation, if it has a version serve."""
    deployment = Deployment.objects.select_related("activation").filter(model=model).first()
    return deployment.activation if deployment and deployment.activation.version_id else None


def routing_of(activation: Activation | None) -> Routing:
    """Where an activation sends traffic; nowhere where there is none."""
    return Routing.from_json(activation.routing, activation.version_number) if activation else Routing()


def expect(current: Activation | None, version: int | None = None, activation: int | None = None) -> None:
    """Go on only if what serves is what the caller expects to.

    version: the number of what serves, or 0 for nothing. activation: the number of the newest one, or 0 for none.

    Raises:
        Conflict: it is not.
    """
    number = (current.version_number if current else None) or NOTHING
    if version is not None and version != number:
        what = f"version {number} serves" if number else "nothing serves"
        raise Conflict(f"You expected version {version}, but {what} now.", code="stale_expected_version")
    latest = current.number if current else NOTHING
    if activation is not None and activation != latest:
        raise Conflict(
            f"You expected activation {activation}, but {latest} is the newest; look at what it says first.",
            code="stale_expected_activation",
        )


def ready_versions(model: RegisteredModel, numbers: tuple[int, ...]) -> dict[int, ModelVersion]:
    """These versions of a model by their numbers, all of which may serve.

    Raises:
        NotFound: there is no such version. Conflict: one is not ready.
    """
    found = {one.number: one for one in model.versions.select_related("model", "bundle").filter(number__in=numbers)}
    for number in numbers:
        if number not in found:
            raise NotFound(f"{model.name} has no version {number}.")
        refuse_unless_ready(found[number])
    return found


def refuse_unless_ready(version: ModelVersion) -> None:
    """Go on only with a version that may serve.

    Raises:
        Conflict: it may not, and why.
    """
    if version.is_ready:
        return
    why = f": {version.rejection_reason}" if version.state == VersionState.REJECTED else ""
    raise Conflict(f"{version} is {version.state}, not ready{why}", code="version_not_ready")


def add_activation(
    model: RegisteredModel,
    routing: Routing,
    actor: str,
    reason: str,
    *,
    criteria: Mapping[str, Any] | None = None,
) -> Activation:
    """The model's next activation, which its deployment points to from now on.

    Raises:
        NotFound, Conflict: a version that it routes to is not there, or not ready.
    """
    versions = ready_versions(model, routing.versions)
    before = newest(model)
    activation = Activation.objects.create(
        model=model,
        number=before.number + 1 if before else 1,
        version=versions[routing.version] if routing.version else None,
        version_number=routing.version,
        routing=routing.to_json(),
        criteria=dict(criteria or {}),
        reason=reason[:500],
        actor=actor,
    )
    Deployment.objects.update_or_create(model=model, defaults={"activation": activation})
    return activation
