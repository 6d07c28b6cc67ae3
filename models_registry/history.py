"""A model's history of activations; its newest says what serves. Callers hold the lock of the model's row."""

from collections.abc import Mapping
from typing import Any

from common.errors import Conflict
from models_registry.models import Activation, Deployment, ModelVersion, RegisteredModel

NOTHING = 0  # the `expected_version` of who expects that nothing serves


def serving(model: RegisteredModel) -> Activation | None:
    """The newest activation, if it has a version serve."""
    deployment = Deployment.objects.select_related("activation").filter(model=model).first()
    return deployment.activation if deployment and deployment.activation.version_id else None


def newest(model: RegisteredModel) -> Activation:
    """The newest activation.

    Raises:
        Conflict: there never was one.
    """
    found = Activation.objects.filter(model=model).first()
    if found is None:
        raise Conflict(f"No version of {model.name} was ever active.", code="no_active_version")
    return found


def expect(current: Activation | None, expected: int | None) -> None:
    """Go on only if what serves is what the caller expects to.

    Raises:
        Conflict: it is not.
    """
    number = current.version_number if current else NOTHING
    if expected is not None and expected != number:
        what = f"version {number} serves" if number else "nothing serves"
        raise Conflict(f"You expected version {expected}, but {what} now.", code="stale_expected_version")


def add_activation(
    model: RegisteredModel,
    version: ModelVersion | None,
    actor: str,
    reason: str,
    *,
    routing: Mapping[str, Any] | None = None,
    criteria: Mapping[str, Any] | None = None,
) -> Activation:
    """The model's next activation, which its deployment points to from now on. The routing stays if none is given."""
    before = Activation.objects.filter(model=model).first()
    activation = Activation.objects.create(
        model=model,
        number=before.number + 1 if before else 1,
        version=version,
        version_number=version.number if version else None,
        routing=dict(routing if routing is not None else before.routing if before else {}),
        criteria=dict(criteria or {}),
        reason=reason[:500],
        actor=actor,
    )
    Deployment.objects.update_or_create(model=model, defaults={"activation": activation})
    return activation
