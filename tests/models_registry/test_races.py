"""What two callers at once may do to one model."""

import io
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, connections

import inference.services
from common.errors import Conflict, Denied, NotFound, PlatformError
from inference.routing import Route
from inference.served import Served
from models_registry import services
from models_registry.blobs import IncomingFile, open_file, store_bundle, sweep
from models_registry.models import Activation, Alias, Blob, Bundle, Deployment, ModelVersion
from runtimes.signature import Field, Signature
from tenants.scope import tenant_scope
from tests.models_registry.test_blobs import age

SIGNATURE = Signature("tensor", (Field("x", "float64", (-1, 1)),), ())


def at_once(tenant: Any, *calls: Callable[[], Any]) -> list[Any]:
    """What the calls gave or raised, all of them started together, each on a connection of its own."""
    barrier, results = threading.Barrier(len(calls)), [None] * len(calls)

    def run(index: int, call: Callable[[], Any]) -> None:
        try:
            with tenant_scope(tenant):
                connection.ensure_connection()
                barrier.wait(30)
                results[index] = call()
        except PlatformError as error:
            results[index] = error  # type: ignore[call-overload]
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def upload(model_name: str, content: bytes) -> Callable[[], ModelVersion]:
    return lambda: services.register_version(
        model_name=model_name, files=[IncomingFile("m.pkl", io.BytesIO(content))], actor="tests", create=True
    )


def activation_of(version: ModelVersion, expected: int | None = None) -> Callable[[], Activation]:
    return lambda: services.activate(version=version, actor="tests", expected_version=expected)


def test_uploads_at_once_get_numbers_of_their_own(committed_tenant: Any) -> None:
    versions = at_once(committed_tenant, *[upload("churn", bytes([index % 2])) for index in range(6)])

    assert sorted(version.number for version in versions) == [1, 2, 3, 4, 5, 6]


def test_uploads_of_the_same_bytes_at_once_keep_one_file(committed_tenant: Any) -> None:
    for storage_alias in ("filesystem", "database"):
        committed_tenant.storage_alias = storage_alias
        at_once(committed_tenant, *[upload("churn", b"same" * 500_000) for _ in range(4)])

        with tenant_scope(committed_tenant):
            assert Blob.objects.filter(storage_alias=storage_alias).count() == 1
    with tenant_scope(committed_tenant):
        assert Bundle.objects.count() == 1


def test_one_version_activated_many_times_at_once_adds_one_row(
    committed_tenant: Any, make_version: Callable[..., ModelVersion]
) -> None:
    with tenant_scope(committed_tenant):
        version = make_version()

    activations = at_once(committed_tenant, *[activation_of(version)] * 5)

    assert len({activation.pk for activation in activations}) == 1
    with tenant_scope(committed_tenant):
        assert Activation.objects.count() == 1


def test_many_versions_activated_at_once_add_a_row_each_in_one_order(
    committed_tenant: Any, make_version: Callable[..., ModelVersion]
) -> None:
    with tenant_scope(committed_tenant):
        versions = [make_version() for _ in range(5)]

    at_once(committed_tenant, *[activation_of(version) for version in versions])

    with tenant_scope(committed_tenant):
        history = list(Activation.objects.values_list("number", "version_number"))
        assert [number for number, _ in history] == [5, 4, 3, 2, 1]
        assert {version for _, version in history} == {1, 2, 3, 4, 5}
        assert Deployment.objects.get().activation.number == 5


def test_of_those_who_expect_the_same_exactly_one_wins(
    committed_tenant: Any, make_version: Callable[..., ModelVersion]
) -> None:
    with tenant_scope(committed_tenant):
        versions = [make_version() for _ in range(4)]

    results = at_once(committed_tenant, *[activation_of(version, 0) for version in versions])

    assert sum(isinstance(result, Activation) for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 3


def test_a_version_is_deleted_or_activated_never_both(
    committed_tenant: Any, make_version: Callable[..., ModelVersion]
) -> None:
    for _ in range(5):
        with tenant_scope(committed_tenant):
            version = make_version()

        at_once(
            committed_tenant,
            activation_of(version),
            lambda version=version: services.delete_version(version=version, actor="tests"),  # type: ignore[misc]
        )

        with tenant_scope(committed_tenant):
            serves = Deployment.objects.filter(activation__version__number=version.number).exists()
            assert ModelVersion.objects.filter(pk=version.pk).exists() == serves


def test_a_sweep_beside_uploads_takes_nothing_that_they_use(committed_tenant: Any) -> None:
    def store() -> Bundle:
        return store_bundle([IncomingFile("a", io.BytesIO(b"same")), IncomingFile("b", io.BytesIO(b"other"))])

    for _ in range(5):
        with tenant_scope(committed_tenant):
            store()
            age()  # both files are the collector's from now on, unless somebody uses them again

        results = at_once(committed_tenant, store, sweep, store, sweep)

        for bundle in (results[0], results[2]):
            assert isinstance(bundle, Bundle)
            with tenant_scope(committed_tenant):
                contents = []
                for file in bundle.files.select_related("blob"):
                    with open_file(file) as source:
                        contents.append(source.read())
                assert contents == [b"same", b"other"]


def test_a_version_is_deleted_or_aliased_never_both(
    committed_tenant: Any, make_version: Callable[..., ModelVersion]
) -> None:
    for _ in range(5):
        with tenant_scope(committed_tenant):
            version = make_version()

        results = at_once(
            committed_tenant,
            lambda version=version: services.set_alias(version=version, name="best", actor="tests"),  # type: ignore[misc]
            lambda version=version: services.delete_version(version=version, actor="tests"),  # type: ignore[misc]
        )

        assert sum(isinstance(result, Conflict | NotFound) for result in results) == 1
        with tenant_scope(committed_tenant):
            is_there = ModelVersion.objects.filter(pk=version.pk).exists()
            assert Alias.objects.filter(version=version.pk).exists() == is_there
            Alias.objects.all().delete()


def test_a_version_is_deleted_or_predicts_later_never_both(
    committed_tenant: Any, make_version: Callable[..., ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference.services, "decode", lambda body, signature: None)
    for _ in range(5):
        with tenant_scope(committed_tenant):
            version = make_version()

        results = at_once(
            committed_tenant,
            lambda version=version: inference.services.submit_prediction(  # type: ignore[misc]
                route=Route("churn", Served(version.pk, version.number, "", SIGNATURE, "")),
                body={"instances": [[1]]},
                actor="tests",
            ),
            lambda version=version: services.delete_version(version=version, actor="tests"),  # type: ignore[misc]
        )

        codes = [result.code for result in results if isinstance(result, PlatformError)]
        assert codes in (["version_deleted"], ["version_in_use"])


def test_uploads_at_once_share_the_room_there_is(committed_tenant: Any) -> None:
    committed_tenant.max_storage_bytes = 15

    results = at_once(committed_tenant, *[upload("churn", bytes([index]) * 10) for index in range(3)])

    assert sum(isinstance(result, ModelVersion) for result in results) == 1
    assert sum(isinstance(result, Denied) for result in results) == 2
