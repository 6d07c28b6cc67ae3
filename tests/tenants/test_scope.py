"""Which tenant a piece of code works for."""

from contextlib import suppress
from typing import Any

import pytest
from django.db import connection

from tenants.middleware import chunks_in_scope
from tenants.scope import NoTenantInScope, current_tenant, shared_scope, tenant_scope


def search_path() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW search_path")
        return str(cursor.fetchone()[0])


def test_code_that_meets_no_tenant_raises(db: None) -> None:
    with pytest.raises(NoTenantInScope):
        current_tenant()


def test_the_tenant_before_is_back_after_a_scope_that_raised(acme: Any, globex: Any) -> None:
    with tenant_scope(acme):
        with suppress(ValueError), tenant_scope(globex):
            assert globex.schema_name in search_path()
            raise ValueError
        assert current_tenant() == acme
        assert acme.schema_name in search_path()
    assert search_path() == "public"


def test_the_shared_scope_sees_no_tenant(acme: Any) -> None:
    with tenant_scope(acme), shared_scope():
        assert search_path() == "public"
        with pytest.raises(NoTenantInScope):
            current_tenant()


def test_a_body_sent_after_its_view_is_made_in_the_tenants_scope(acme: Any) -> None:
    def body() -> Any:
        yield current_tenant().tenant_id.encode()
        yield search_path().encode()

    chunks = chunks_in_scope(acme, body())

    assert next(chunks) == b"acme"
    assert search_path() == "public"
    assert acme.schema_name.encode() in next(chunks)
    assert list(chunks) == []
    assert search_path() == "public"
