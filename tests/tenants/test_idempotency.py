"""A request that is sent twice under one Idempotency-Key is done once."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import QueryDict
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from common.errors import Conflict, Invalid
from tenants import idempotency
from tenants.authentication import INCLUDES, Caller
from tenants.idempotency import Idempotent, begin, fingerprint, keep
from tenants.journal.models import KeptAnswer
from tenants.models import Scope, Tenant
from tenants.scope import connection, tenant_scope

CALLER = Caller("token:test", INCLUDES[Scope.ADMIN])


class AsTest(BaseAuthentication):
    """Everybody is the test's caller."""

    def authenticate(self, request: Request) -> tuple[Any, Caller]:
        return None, CALLER


class Things(Idempotent, APIView):
    """Counts how often it was really asked."""

    authentication_classes = (AsTest,)
    permission_classes = ()
    secret_fields = ("secret",)
    answer: Callable[[int], Response] = staticmethod(
        lambda n: Response({"n": n, "secret": "s3"}, 201, headers={"Location": f"things/{n}"})
    )
    count = 0

    def post(self, request: Request) -> Response:
        type(self).count += 1
        return type(self).answer(self.count)


@pytest.fixture
def in_acme(acme: Tenant) -> Iterator[Tenant]:
    with tenant_scope(acme):
        yield acme


@pytest.fixture
def things() -> type[Things]:
    return type("FreshThings", (Things,), {"count": 0})


def post(view: type[APIView], body: Any = None, key: str | None = "k-1", path: str = "/things") -> Response:
    headers = {"Idempotency-Key": key} if key else {}
    answer: Response = view.as_view()(APIRequestFactory().post(path, body or {"a": 1}, format="json", headers=headers))
    answer.render()
    return answer


def test_a_repeated_request_gets_the_first_answer(in_acme: Tenant, things: type[Things]) -> None:
    first, second = post(things), post(things)

    assert (first.status_code, first["Location"]) == (second.status_code, second["Location"]) == (201, "things/1")
    assert json.loads(second.content)["n"] == 1
    assert second["Idempotent-Replayed"] == "true"
    assert things.count == 1


def test_a_secret_is_never_written_down(in_acme: Tenant, things: type[Things]) -> None:
    post(things)

    assert KeptAnswer.objects.get().body == {"n": 1}
    assert json.loads(post(things).content) == {"n": 1}


def test_without_a_key_each_request_is_done(in_acme: Tenant, things: type[Things]) -> None:
    post(things, key=None)
    post(things, key=None)

    assert things.count == 2


def test_another_body_under_the_same_key_is_refused(in_acme: Tenant, things: type[Things]) -> None:
    post(things, {"a": 1})
    second = post(things, {"a": 2})

    assert second.status_code == 422
    assert json.loads(second.content)["error"]["code"] == "idempotency_key_reused"
    assert things.count == 1


def test_a_key_counts_for_its_path_alone(in_acme: Tenant, things: type[Things]) -> None:
    post(things, path="/things")
    post(things, path="/others")

    assert things.count == 2


@pytest.mark.parametrize("key", ["", "x" * 201, "with space", "ключ"])
def test_what_is_no_key_is_refused(in_acme: Tenant, key: str) -> None:
    with pytest.raises(Invalid):
        begin(key=key, caller="c", path="/", fingerprint="f")


@pytest.mark.parametrize("status", [500, 503, 429])
def test_an_answer_that_says_later_is_not_kept(in_acme: Tenant, things: type[Things], status: int) -> None:
    things.answer = staticmethod(lambda n: Response({"n": n}, status if n == 1 else 201))

    assert [post(things).status_code for _ in range(3)] == [status, 201, 201]
    assert things.count == 2


def test_an_error_of_the_caller_is_kept(in_acme: Tenant, things: type[Things]) -> None:
    def refuse(n: int) -> Response:
        raise Conflict("There is one already.", code="already_exists")

    things.answer = staticmethod(refuse)

    assert [post(things).status_code for _ in range(2)] == [409, 409]
    assert things.count == 1


def test_a_bug_frees_the_key(in_acme: Tenant, things: type[Things]) -> None:
    def break_down(n: int) -> Response:
        raise RuntimeError("a bug")

    things.answer = staticmethod(break_down)
    with pytest.raises(RuntimeError):
        post(things)

    assert not KeptAnswer.objects.exists()


def test_a_request_in_progress_answers_409(in_acme: Tenant) -> None:
    begin(key="k", caller="c", path="/", fingerprint="f")
    with pytest.raises(Conflict) as caught:
        begin(key="k", caller="c", path="/", fingerprint="f")

    assert (caught.value.code, caught.value.retry_after_s) == ("request_in_progress", 1)


def test_a_crashed_first_try_is_taken_over_and_fenced(in_acme: Tenant) -> None:
    crashed = begin(key="k", caller="c", path="/", fingerprint="f")
    long_ago = timezone.now() - idempotency.TAKEN_OVER_AFTER - timedelta(seconds=1)
    KeptAnswer.objects.filter(pk=crashed.pk).update(created_at=long_ago)
    crashed.created_at = long_ago

    second = begin(key="k", caller="c", path="/", fingerprint="f")
    keep(crashed, 201, "of the first")
    keep(second, 201, "of the second")

    assert begin(key="k", caller="c", path="/", fingerprint="f").body == "of the second"


def test_an_answer_is_kept_for_a_day_and_swept(in_acme: Tenant) -> None:
    keep(begin(key="k", caller="c", path="/", fingerprint="f"), 201, {})
    KeptAnswer.objects.update(created_at=timezone.now() - timedelta(hours=23))
    assert idempotency.sweep() == 0
    KeptAnswer.objects.update(created_at=timezone.now() - timedelta(hours=25))

    assert begin(key="k", caller="c", path="/", fingerprint="another body").status is None
    KeptAnswer.objects.update(created_at=timezone.now() - timedelta(hours=25))
    assert idempotency.sweep() == 1
    assert not KeptAnswer.objects.exists()


def test_a_tenant_whose_schema_is_broken_does_not_end_the_sweep(acme: Tenant, globex: Tenant) -> None:
    for tenant in (acme, globex):
        with tenant_scope(tenant):
            keep(begin(key="k", caller="c", path="/", fingerprint="f"), 201, {})
            KeptAnswer.objects.update(created_at=timezone.now() - timedelta(hours=25))
    broken, sound = list(Tenant.objects.filter(state="active"))[:2]
    with tenant_scope(broken), connection.cursor() as cursor:
        cursor.execute("ALTER TABLE journal_keptanswer RENAME TO journal_gone")

    assert idempotency.sweep() == 1
    with tenant_scope(sound):
        assert not KeptAnswer.objects.exists()


def test_files_are_part_of_the_fingerprint_and_can_still_be_read() -> None:
    def body(content: bytes) -> tuple[QueryDict, SimpleUploadedFile]:
        data, file = QueryDict(mutable=True), SimpleUploadedFile("a.bin", content)
        data.setlist("metadata", ["{}"])
        data.setlist("file", [file])  # type: ignore[list-item]
        return data, file

    (first, file), (same, _), (other, _) = body(b"x" * 3), body(b"x" * 3), body(b"x" * 2 + b"y")

    assert fingerprint(first) == fingerprint(same) != fingerprint(other)
    assert file.read() == b"xxx"


def test_the_order_of_fields_makes_no_other_request() -> None:
    assert (
        fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1}) != fingerprint({"b": [2, 1], "a": 1})
    )


def test_of_many_requests_at_once_one_is_done(committed_tenant: Tenant) -> None:
    outcomes: list[str] = []
    together = threading.Barrier(8)

    def attempt() -> None:
        try:
            with tenant_scope(committed_tenant):
                together.wait()
                outcomes.append(_outcome())
        finally:
            connection.close()

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["first"] + ["in progress"] * 7


def _outcome() -> str:
    try:
        begin(key="k", caller="c", path="/", fingerprint="f")
    except Conflict:
        return "in progress"
    return "first"
