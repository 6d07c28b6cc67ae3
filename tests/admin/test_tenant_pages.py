"""Usage, settings and the audit trail of a tenant."""

import csv
import io
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from tenants.audit import record
from tenants.journal import export
from tenants.journal.models import AuditEvent
from tenants.models import Tenant
from tests.clients import TenantClient

AUDIT = "admin/journal/auditevent"


@pytest.fixture
def admin(here: Tenant, logged_in: Any) -> TenantClient:
    client: TenantClient = logged_in(here, "admin")
    return client


def exported(client: TenantClient, query: str = "") -> list[dict[str, str]]:
    response: Any = client.get(f"{AUDIT}/export/{query}")
    assert response["Content-Type"].startswith("text/csv")
    assert response["Content-Disposition"].startswith('attachment; filename="acme-audit-')
    return list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode())))


def test_the_trail_is_exported_whole_the_newest_first(
    admin: TenantClient, here: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "AT_ONCE", 3)
    AuditEvent.objects.all().delete()
    for number in range(10):
        record(actor="tests", action="test.note", target=str(number), number=number)
    AuditEvent.objects.update(at=timezone.now())  # events of one moment are told apart, too
    rows = exported(admin)
    assert sorted(row["target"] for row in rows) == [str(number) for number in range(10)]
    assert [row["at"] for row in rows] == sorted((row["at"] for row in rows), reverse=True)
    assert rows[0]["detail"] == f'{{"number": {rows[0]["target"]}}}'


def test_the_export_has_what_the_list_shows(admin: TenantClient) -> None:
    AuditEvent.objects.all().delete()
    record(actor="ann@acme.test", action="version.activate", target="churn v1")
    record(actor="ben@acme.test", action="version.delete", target="churn v1")
    record(actor="ben@acme.test", action="version.delete", target="fraud v1")
    AuditEvent.objects.filter(target="fraud v1").update(at=timezone.now() - timedelta(days=3))
    for query, targets in (
        ("?action=version.delete", ["churn v1", "fraud v1"]),
        ("?actor=ben%40acme.test&within=day", ["churn v1"]),
        ("?q=fraud", ["fraud v1"]),
        ("?within=hour&q=nothing", []),
    ):
        assert [row["target"] for row in exported(admin, query)] == targets, query
        page = admin.get(f"{AUDIT}/{query}").content.decode()
        assert all(target in page for target in targets), query
        assert f"export/{query.replace('&', '&amp;')}" in page


def test_no_exported_cell_is_a_formula(admin: TenantClient) -> None:
    record(actor="=cmd|' /C calc'!A0", action="test.note", target='+1","x\n')
    row = exported(admin, "?action=test.note")[0]
    assert row["actor"] == "'=cmd|' /C calc'!A0"
    assert row["target"] == '\'+1","x\n'


def test_a_strange_filter_is_no_fault_of_ours(admin: TenantClient) -> None:
    admin.raise_request_exception = False
    assert admin.get(f"{AUDIT}/export/?nothing__like=it").status_code in (200, 404)


def test_the_settings_are_shown_and_changed(admin: TenantClient, here: Tenant) -> None:
    page = admin.get("admin/settings/").content.decode()
    assert here.storage_alias in page
    assert "Set by the operator" in page

    said = {"name": "Acme Ltd", "default_model": "churn", "lane": "queue"}
    assert admin.post("admin/settings/", said)["Location"] == "/t/acme/admin/settings/"
    here.refresh_from_db()
    assert (here.name, here.default_model, here.lane) == ("Acme Ltd", "churn", "queue")
    assert AuditEvent.objects.filter(action="settings.update", actor="admin@acme.test").exists()


@pytest.mark.parametrize("wrong", [{"name": ""}, {"default_model": "no spaces"}, {"lane": "scenic"}])
def test_settings_that_make_no_sense_are_refused(admin: TenantClient, here: Tenant, wrong: dict[str, str]) -> None:
    response = admin.post("admin/settings/", {"name": "Changed", "default_model": "", "lane": ""} | wrong)
    assert response.status_code == 200
    here.refresh_from_db()
    assert here.name != "Changed"


def test_usage_says_what_is_taken_and_what_may_be(admin: TenantClient, make_version: Any) -> None:
    make_version("churn", content=b"x" * 2048)
    page = admin.get("admin/usage/").content.decode().replace("\xa0", " ")
    for shown in ("2.0 KB", "100.0 GB", "churn", "Predictions in the last 7 days", "Quotas"):
        assert shown in page
