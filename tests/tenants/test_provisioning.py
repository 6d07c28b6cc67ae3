"""A tenant's schema: made whole or not at all, brought up to date, and gone for good."""

from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.db import transaction

from common.errors import Conflict, Invalid, Unavailable
from tenants import provisioning, services
from tenants.models import ApiToken, Domain, Job, Membership, SchemaTemplate, Tenant, User
from tenants.scope import connection, tenant_scope

MOST_TABLES = 25


def tables_of(schema_name: str) -> dict[str, list[str]]:
    """The columns of each table of a schema."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name, array_agg(column_name || ' ' || data_type || ' ' || is_nullable ORDER BY column_name)"
            " FROM information_schema.columns WHERE table_schema = %s GROUP BY table_name",
            [schema_name],
        )
        return dict(cursor.fetchall())


def indexes_of(schema_name: str) -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE schemaname = %s", [schema_name])
        return {definition.replace(schema_name, "") for (definition,) in cursor.fetchall()}


def constraints_of(schema_name: str) -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE connamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s)",
            [schema_name],
        )
        return {definition.replace(f"{schema_name}.", "") for (definition,) in cursor.fetchall()}


def provision(tenant_id: str, **fields: Any) -> services.Provisioned:
    return services.provision_tenant(
        **{"tenant_id": tenant_id, "name": "X", "admin_email": f"a@{tenant_id}.test", "actor": "tests"} | fields
    )


def test_a_replayed_schema_equals_a_migrated_one(acme: Tenant) -> None:
    template = provisioning.TEMPLATE_SCHEMA  # was migrated, one migration at a time

    assert tables_of(acme.schema_name) == tables_of(template)
    assert indexes_of(acme.schema_name) == indexes_of(template)
    assert constraints_of(acme.schema_name) == constraints_of(template)


def test_nothing_in_a_tenants_schema_points_to_the_template(acme: Tenant) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conname FROM pg_constraint c JOIN pg_class t ON t.oid = c.confrelid"
            " JOIN pg_namespace theirs ON theirs.oid = t.relnamespace"
            " JOIN pg_namespace ours ON ours.oid = c.connamespace"
            " WHERE ours.nspname = %s AND theirs.nspname NOT IN (%s, 'public')",
            [acme.schema_name, acme.schema_name],
        )
        assert cursor.fetchall() == []


def test_a_tenants_schema_stays_small(acme: Tenant) -> None:
    assert len(tables_of(acme.schema_name)) <= MOST_TABLES


def test_a_new_tenant_needs_no_migration(acme: Tenant) -> None:
    made = provision("initech")

    assert made.tenant.fingerprint == provisioning.fingerprint() == acme.fingerprint
    assert made.tenant not in provisioning.behind(provisioning.fingerprint())
    assert made.tenant.schema_name == f"t_{made.tenant.uuid.hex}"


def test_a_first_admin_gets_a_password_and_a_token(acme: Tenant) -> None:
    made = provision("initech")

    assert made.admin.check_password(made.admin_password or "")
    assert Membership.objects.get(tenant=made.tenant).role == "admin"
    assert ApiToken.objects.by_secret(made.token).get().tenant == made.tenant


@pytest.mark.parametrize(
    "tenant_id", ["ab", "Acme", "a" * 41, "1abc", "abc-", "a_b", "admin", "api", 'a"b', "a.b", "ä-b"]
)
def test_a_name_that_cannot_be_an_address_is_refused(acme: Tenant, tenant_id: str) -> None:
    with pytest.raises(Invalid):
        provision(tenant_id, admin_email="a@b.test")


def test_a_name_is_given_once(acme: Tenant) -> None:
    with pytest.raises(Conflict):
        provision("acme")


def test_provisioning_is_all_or_nothing(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**fields: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(ApiToken, "mint", broken)
    before = _schemas()
    with pytest.raises(RuntimeError), transaction.atomic():
        provision("initech")

    assert _schemas() == before
    assert not Tenant.objects.filter(tenant_id="initech").exists()
    assert not User.objects.filter(email="a@initech.test").exists()


def test_provisioning_is_refused_when_the_database_is_behind(acme: Tenant) -> None:
    SchemaTemplate.objects.update(fingerprint="of the version before")
    with pytest.raises(Unavailable) as caught:
        provision("initech")

    assert caught.value.code == "not_upgraded"
    assert not Tenant.objects.filter(tenant_id="initech").exists()


def test_an_upgrade_skips_who_is_up_to_date_and_goes_on_where_it_stopped(
    committed_tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _migrated() == []
    Tenant.objects.filter(pk=committed_tenant.pk).update(fingerprint="of the version before")

    with monkeypatch.context() as broken:
        broken.setattr(provisioning, "_migrate", _fail)
        with pytest.raises(Unavailable, match=committed_tenant.tenant_id):
            list(provisioning.upgrade())

    assert _migrated() == [f"{committed_tenant.tenant_id} migrated"]
    assert _migrated() == []


def test_an_upgrade_applies_what_a_tenant_lacks(committed_tenant: Tenant) -> None:
    with tenant_scope(committed_tenant), connection.cursor() as cursor:
        cursor.execute("DROP TABLE journal_keptanswer, journal_auditevent")
        cursor.execute("DELETE FROM django_migrations WHERE app = 'journal'")
    Tenant.objects.filter(pk=committed_tenant.pk).update(fingerprint="of the version before")

    assert _migrated() == [f"{committed_tenant.tenant_id} migrated"]
    assert tables_of(committed_tenant.schema_name) == tables_of(provisioning.TEMPLATE_SCHEMA)


def test_a_deleted_tenant_is_gone_with_its_schema_its_files_and_its_rows(
    globex: Tenant, settings: Any, tmp_path: Path
) -> None:
    tenant = provision("initech", storage_alias="filesystem").tenant
    services.add_domain(tenant=tenant, domain="models.initech.test", actor="tests")
    Job.objects.create(tenant=tenant, kind="training.run", object_id="1")
    name = storages["filesystem"].save("initech/ab/cdef", ContentFile(b"a model"))
    theirs = storages["filesystem"].save("globex/ab/cdef", ContentFile(b"another"))

    services.delete_tenant(tenant=tenant, confirm="initech", actor="tests")

    assert not provisioning.has_schema(tenant)
    assert not storages["filesystem"].exists(name)
    assert storages["filesystem"].exists(theirs)
    for model in (Membership, ApiToken, Domain, Job):
        assert not model.objects.filter(tenant_id=tenant.pk).exists()
    assert not Tenant.objects.filter(pk=tenant.pk).exists()
    storages["filesystem"].delete(theirs)


def test_a_deletion_that_stopped_halfway_is_finished_by_the_next(acme: Tenant) -> None:
    tenant = provision("initech").tenant
    provisioning.drop_schema(tenant)

    services.delete_tenant(tenant=tenant, confirm="initech", actor="tests")

    assert not Tenant.objects.filter(pk=tenant.pk).exists()


def test_deleting_needs_the_name_once_more(acme: Tenant) -> None:
    with pytest.raises(Invalid):
        services.delete_tenant(tenant=acme, confirm="", actor="tests")

    assert provisioning.has_schema(acme)


def test_a_name_used_again_meets_nothing_of_its_predecessor(acme: Tenant) -> None:
    first = provision("initech")
    services.delete_tenant(tenant=first.tenant, confirm="initech", actor="tests")
    second = provision("initech")

    assert second.tenant.uuid != first.tenant.uuid
    assert second.tenant.schema_name != first.tenant.schema_name
    assert not ApiToken.objects.by_secret(first.token).exists()


def _migrated() -> list[str]:
    return [line for line in provisioning.upgrade() if "migrated" in line]


def _fail(schema_name: str) -> None:
    from django.db import ProgrammingError

    raise ProgrammingError("a migration broke")


def _schemas() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT nspname FROM pg_namespace")
        return {name for (name,) in cursor.fetchall()}
