"""What a process remembers of a model's routing is made from tables that notify, and is right after every change."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from common.errors import Conflict, NotFound, PlatformError
from inference import routing
from inference.routing import route
from inference.served import Served
from models_registry import deployments, services
from models_registry.blobs import IncomingFile
from models_registry.models import Activation, Alias, Deployment, ModelVersion, RegisteredModel
from models_registry.routing import Share
from runtimes.signature import Field, Signature
from tenants.scope import tenant_scope
from tenants.tables import listener
from tests.tenants.test_tables import SHOWS_WITHIN_S, triggers, within

SIGNATURE = Signature("tensor", (Field("input", "float64", (-1, 4)),), (Field("prediction", "string", (-1,)),))


@pytest.fixture
def tenant(committed_tenant: Any, settings: Any) -> Iterator[Any]:
    """A tenant in scope with two ready versions of `churn`, of which the first serves."""
    settings.WARM_UP_SECONDS = 0  # nothing here asks a model
    with tenant_scope(committed_tenant):
        first, _ = (_ready_version(str(number)) for number in (1, 2))
        services.activate(version=first, actor="tests")
        within(10, listener.is_believable, "changes are heard")
        yield committed_tenant


def _ready_version(content: str) -> ModelVersion:
    """A version that inspection might have found ready."""
    files = [IncomingFile("model.pkl", io.BytesIO(content.encode()))]
    version = services.register_version(model_name="churn", files=files, actor="tests", create=True)
    assert version.inspection_job is not None
    version.inspection_job.cancel()
    assert version.accept(signature=SIGNATURE.to_json(), format="sklearn")
    return version


def version(number: int) -> ModelVersion:
    return ModelVersion.objects.get(model__name="churn", number=number)


def answers(body: dict[str, Any] | None = None) -> int | str:
    """Which version answers, or the code of the error."""
    try:
        return route("churn", body or {}).version.number
    except PlatformError as error:
        return error.code


def shows(expected: object, body: dict[str, Any] | None = None) -> None:
    within(SHOWS_WITHIN_S, lambda: answers(body) == expected, f"{expected} instead of {answers(body)}")


def test_whatever_a_route_is_made_from_notifies_its_changes(tenant: Any) -> None:
    services.set_alias(version=version(1), name="champion", actor="tests")
    # In a transaction nothing is remembered, so everything is read.
    with transaction.atomic(), CaptureQueriesContext(connection) as captured:
        for body in ({}, {"version": 1}, {"alias": "champion"}):
            route("churn", body)
        route(None, {})
    read = {name for query in captured for name in re.findall(r'(?:FROM|JOIN) "(\w+)"', query["sql"])}
    assert {"models_registry_deployment", "models_registry_activation", "models_registry_modelversion"} <= read
    assert read <= triggers(tenant.schema_name)


def test_a_route_that_is_remembered_costs_no_query(tenant: Any, django_assert_num_queries: Any) -> None:
    services.set_alias(version=version(2), name="champion", actor="tests")
    bodies: list[dict[str, Any]] = [{}, {"version": 2}, {"alias": "champion"}]
    within(5, lambda: [answers(body) for body in bodies] == [1, 2, 2], "the alias is there")
    route(None, {})
    with django_assert_num_queries(0):
        assert [answers(body) for body in bodies] == [1, 2, 2]
        assert route(None, {}).model_name == "churn"


def test_every_way_to_change_what_serves_shows(tenant: Any) -> None:
    assert answers() == 1
    services.activate(version=version(2), actor="tests")
    shows(2)
    services.rollback(model=version(1).model, actor="tests")
    shows(1)
    deployments.change_deployment(model=version(1).model, actor="tests", split=(Share(2, 100),))
    shows(2)
    ModelVersion.objects.filter(number=2).update(number=7)
    Activation.objects.filter(version_number=2).update(version_number=7)
    shows(7)
    Deployment.objects.filter(model__name="churn").update(activation=Activation.objects.get(number=1))
    shows(1)
    services.deactivate(model=version(1).model, actor="tests")
    shows("no_active_version")


def test_every_way_to_change_what_a_name_stands_for_shows(tenant: Any) -> None:
    by_alias, by_number = {"alias": "champion"}, {"version": 2}
    services.set_alias(version=version(1), name="champion", actor="tests")
    shows(1, by_alias)
    services.set_alias(version=version(2), name="champion", actor="tests")
    shows(2, by_alias)
    Alias.objects.update(name="other")
    shows("not_found", by_alias)
    assert answers(by_number) == 2
    Alias.objects.all().delete()
    ModelVersion.objects.filter(number=2).update(state="rejected")
    shows("version_not_ready", by_number)
    services.delete_version(version=version(2), actor="tests")
    shows("not_found", by_number)
    RegisteredModel.objects.update(name="renamed")
    shows("not_found")


def test_what_is_rolled_back_was_never_routed_to(tenant: Any) -> None:
    assert answers() == 1
    with suppress(ValueError), transaction.atomic():
        Deployment.objects.all().delete()
        assert answers() == "no_active_version"  # a transaction sees its own changes
        raise ValueError
    assert answers() == 1


def test_a_tenant_does_not_meet_what_another_of_its_name_left(tenant: Any, acme: Any) -> None:
    assert answers() == 1
    with tenant_scope(acme), pytest.raises(NotFound):
        route("churn", {})


def test_a_version_that_went_after_it_was_routed_to_says_so(tenant: Any) -> None:
    found = route("churn", {"version": 2})
    services.delete_version(version=version(2), actor="tests")
    with pytest.raises(Conflict, match="was deleted"):
        found.version.load_request()


def test_wide_signatures_push_each_other_out(tenant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = route("churn", {"version": 1}).version.weight
    monkeypatch.setattr(routing.VERSIONS, "_most", weight)
    loads: list[int] = []
    monkeypatch.setattr(Served, "of", _counted(Served.of, loads))
    routing.VERSIONS.forget_all()
    for number in (1, 1, 2, 2, 1):
        assert answers({"version": number}) == number
    assert loads == [1, 2, 1]


def _counted(of: Callable[[ModelVersion], Served], loads: list[int]) -> Callable[[ModelVersion], Served]:
    def load(version: ModelVersion) -> Served:
        loads.append(version.number)
        return of(version)

    return load
