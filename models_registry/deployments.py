"""Changing where a model's traffic goes: plan, warm up, then switch in one short transaction."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.db import transaction

from common.errors import Conflict
from models_registry import warming
from models_registry.history import add_activation, expect, locked, newest, ready_versions, routing_of
from models_registry.models import Activation, RegisteredModel
from models_registry.routing import Routing
from tenants.audit import record

Plan = Callable[[Routing], Routing]


@dataclass(frozen=True)
class Change:
    """Who changes a model's routing, as what action the audit trail has it, and what they expect to find.

    target: what the audit trail says was changed; empty for the version that serves then.
    expected_version: as `history.expect` has it, and so is expected_activation.
    """

    action: str
    actor: str
    target: str = ""
    reason: str = ""
    expected_version: int | None = None
    expected_activation: int | None = None
    criteria: Mapping[str, Any] | None = None


def reroute(model: RegisteredModel, plan: Plan, change: Change) -> Activation:
    """The activation by which the model's traffic goes where `plan` says: a new one, or the present one if it does
    already.

    The versions are in memory of one machine before the switch, however long the warm-up has to wait for that (within
    `WARM_UP_SECONDS`); no lock is held meanwhile, so the plan is made again from what serves by then.

    Raises:
        Invalid: the plan makes no sense. NotFound, Conflict: a version is not there, not ready or cannot be loaded, or
            something else serves than was expected.
        Unavailable: no machine could load a version in time.
    """
    current, after = _planned(model, plan, change)
    if current is None or routing_of(current) != after:
        versions = ready_versions(model, after.versions)
        warming.warm_up(list(versions.values()), after.limits, had=routing_of(current).limits)
    with transaction.atomic():
        model = locked(model)
        current, after = _planned(model, plan, change)
        before = routing_of(current)
        if current is not None and before == after:
            return current
        activation = add_activation(model, after, change.actor, change.reason, criteria=change.criteria)
        detail = {"reason": change.reason, "before": before.version, "routing": after.to_json()}
        target = change.target or f"{model.name} v{after.version}"
        record(actor=change.actor, action=change.action, target=target, **detail)
        warming.settle_once_committed(model, before, after)
    return activation


def _planned(model: RegisteredModel, plan: Plan, change: Change) -> tuple[Activation | None, Routing]:
    current = newest(model)
    before = routing_of(current)
    after = plan(before).checked()
    if current is None or before != after:
        expect(current, change.expected_version, change.expected_activation)
    return current, after


def change_deployment(
    *,
    model: RegisteredModel,
    actor: str,
    reason: str = "",
    expected_version: int | None = None,
    expected_activation: int | None = None,
    **changes: Any,
) -> Activation:
    """The activation that has these changes of the model's routing: any of the fields of `Routing`.

    Raises:
        as `reroute` does; Conflict: nothing serves, and the changes name nothing that is to.
    """
    change = Change(
        "deployment.change",
        actor,
        model.name,
        reason,
        expected_version=expected_version,
        expected_activation=expected_activation,
    )

    def plan(before: Routing) -> Routing:
        if not before.split and not changes.get("split"):
            raise Conflict(
                f"No version of {model.name} is active; activate one first, or name it in split.",
                code="no_active_version",
            )
        return replace(before, **changes)

    return reroute(model, plan, change)


def state_of(model: RegisteredModel) -> tuple[Activation | None, Routing]:
    """The model's newest activation and where it sends traffic."""
    current = newest(model)
    return current, routing_of(current)
