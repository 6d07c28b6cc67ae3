"""What holds for all pages: few queries, nothing from elsewhere, nothing of a tenant's words run as HTML."""

import io
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from models_registry import services
from models_registry.blobs import IncomingFile, store_bundle
from models_registry.models import Bundle, ModelVersion, RegisteredModel
from tenants.audit import record
from tenants.models import ApiToken, Job, JobState, Membership, Tenant, User
from tests.clients import TenantClient
from training.models import Dataset, Run, RunKind

ROWS = 60
MOST_QUERIES = 16
MOST_QUERIES_AT_HOME = 20  # to which every app has something to say
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"

TENANT_LISTS = (
    "models_registry/registeredmodel",
    "models_registry/modelversion",
    "training/run",
    "training/dataset",
    "documents/document",
    "tenants/membership",
    "tenants/apitoken",
    "journal/auditevent",
)
OPERATOR_LISTS = ("tenants/tenant", "tenants/user", "tenants/apitoken", "tenants/job", "tenants/operatoraudit")


@pytest.fixture
def crowded(here: Tenant) -> Tenant:
    """A tenant with many of everything."""
    bundle = Bundle.objects.create(digest="0" * 64, size_bytes=1)
    models = RegisteredModel.objects.bulk_create(RegisteredModel(name=f"model-{n}") for n in range(ROWS))
    versions = ModelVersion.objects.bulk_create(
        ModelVersion(model=model, number=1, bundle=bundle, state="ready", metrics_reported={"auc": 0.5})
        for model in models
    )
    for version in versions[:10]:
        services.activate(version=version, actor="tests")
    jobs = Job.objects.bulk_create(
        Job(tenant=here, kind="training.run", object_id=str(n), state=JobState.RUNNING) for n in range(ROWS)
    )
    Run.objects.bulk_create(
        Run(id=job.pk, job=job, trainer="logistic_regression", kind=RunKind.MANAGED) for job in jobs
    )
    Dataset.objects.bulk_create(Dataset(name=f"dataset-{n}") for n in range(ROWS))
    users = User.objects.bulk_create(User(email=f"user-{n}@acme.test") for n in range(ROWS))
    Membership.objects.bulk_create(Membership(tenant=here, user=user) for user in users)
    for n in range(ROWS):
        ApiToken.mint(name=f"token-{n}", tenant=here, scopes=["read"])
        ApiToken.mint(name=f"operator-{n}", scopes=["read"])[0].tenants.add(here)
        record(actor="tests", action="test.note", target=str(n))
    others = Tenant.objects.bulk_create(
        Tenant(tenant_id=f"tenant-{n}", name=str(n), schema_name=f"t_none_{n}") for n in range(ROWS)
    )
    Job.objects.bulk_create(Job(tenant=other, kind="training.run", object_id="1") for other in others)
    return here


def queries_of(client: TenantClient, paths: Iterable[str]) -> dict[str, int]:
    """How many queries each page takes."""
    counts = {}
    for path in paths:
        with CaptureQueriesContext(connection) as queries:
            response = client.get(f"admin/{path}")
        assert response.status_code == 200, path
        counts[path] = len(queries)
    return counts


def test_lists_take_few_queries(crowded: Tenant, logged_in: Any) -> None:
    tenants = queries_of(logged_in(crowded, "admin"), (f"{path}/" for path in TENANT_LISTS))
    operators = queries_of(logged_in(), (f"{path}/" for path in OPERATOR_LISTS))
    assert max(tenants.values()) <= MOST_QUERIES, tenants
    assert max(operators.values()) <= MOST_QUERIES, operators


def test_lists_show_fifty_rows_a_page(crowded: Tenant, logged_in: Any) -> None:
    page = logged_in(crowded, "admin").get("admin/models_registry/modelversion/").content.decode()
    assert page.count("<tr") == 51


def test_homes_and_a_models_page_take_few_queries(crowded: Tenant, logged_in: Any) -> None:
    model = RegisteredModel.objects.all()[0]
    tenants = queries_of(logged_in(crowded, "admin"), ("", f"models_registry/registeredmodel/{model.pk}/change/"))
    operators = queries_of(logged_in(), ("", f"tenants/tenant/{crowded.pk}/change/"))
    assert max(*tenants.values(), *operators.values()) <= MOST_QUERIES_AT_HOME, (tenants, operators)


@pytest.fixture
def hostile(here: Tenant, make_version: Any) -> Tenant:
    """A tenant whose members have written script wherever they may write."""
    words = {
        "description": EVIL,
        "tags": {EVIL: EVIL},
        "metrics": {EVIL: 0.5},
        "params": {EVIL: EVIL},
        "labels": [EVIL],
    }
    version = make_version(**words)
    rejected = make_version(state="rejected", content=b"other", **words)
    files = [IncomingFile(f"{EVIL.replace('/', '')}.pkl", _empty()), IncomingFile("b", _empty())]
    ModelVersion.objects.filter(pk=version.pk).update(
        bundle=store_bundle(files), signature=_signature(), inspection={"type_name": EVIL, "warnings": [EVIL]}
    )
    ModelVersion.objects.filter(pk=rejected.pk).update(rejection_reason=EVIL)
    services.activate(version=version, actor=EVIL, reason=EVIL)
    RegisteredModel.objects.update(description=EVIL, task=EVIL[:40], tags={EVIL: EVIL})
    Run.objects.create(
        kind=RunKind.EXTERNAL, external_state="failed", trainer=EVIL, metrics={EVIL: 1.0}, log=EVIL, params={EVIL: EVIL}
    )
    ApiToken.mint(name=EVIL, tenant=here, scopes=["read"])
    Membership.objects.create(tenant=here, user=User.objects.create(email="evil@acme.test", name=EVIL))
    record(actor=EVIL, action="test.note", target=EVIL, **{"detail": {EVIL: EVIL}})
    Tenant.objects.filter(pk=here.pk).update(name=EVIL)
    Job.objects.create(tenant=here, kind="training.run", object_id="1", state=JobState.FAILED, error_message=EVIL)
    return here


def test_hostile_words_come_out_as_words_and_nothing_is_loaded_from_elsewhere(hostile: Tenant, logged_in: Any) -> None:
    """One test of both, since walking all pages takes seconds."""
    seen = [page for client in (logged_in(hostile, "admin"), logged_in()) for page in crawl(client)]
    assert len(seen) > 50
    for path, html in seen:
        parser = Elements()
        parser.feed(html)
        assert not parser.foreign, f"{path} has what no template of ours wrote: {parser.foreign}"
        loaded = re.findall(r'<(?:link|script|img|iframe|source)\b[^>]*?(?:href|src)="([^"]*)"', html)
        assert all(url.startswith("/") and not url.startswith("//") for url in loaded), f"{path} loads {loaded}"
    assert any("&lt;script&gt;alert(1)" in html for _, html in seen)


def test_a_browser_is_told_what_a_page_may_do(logged_in: Any, here: Tenant) -> None:
    policy = logged_in(here, "admin").get("admin/")["Content-Security-Policy"]
    assert "unsafe-inline" not in policy
    assert policy.startswith("default-src 'self'; ")


def crawl(client: TenantClient) -> Iterator[tuple[str, str]]:
    """Every page of the admin that can be reached by links, with its HTML."""
    found, left = set[str](), ["admin/"]
    while left:
        path = left.pop()
        if path in found or "download" in path:
            continue
        found.add(path)
        response = client.get(path)
        if response.status_code == 200 and response["Content-Type"].startswith("text/html"):
            html = response.content.decode()
            yield path, html
            links = re.findall(rf'href="{re.escape(client.base_path)}/(admin/[^"#?]*)"', html)
            left += [link for link in links if not link.startswith("admin/password_change")]


class Elements(HTMLParser):
    """Collects what only a hostile word could have made: scripts with its text, handlers, images from elsewhere.

    And what the page's policy would refuse: scripts and styles that stand in the page itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[str] = []
        self._is_in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._is_in_script = tag == "script"
        names = dict(attrs)
        is_inline = "style" in names or tag == "style" or any(name.startswith("on") for name in names)
        if is_inline or (tag == "img" and not (names.get("src") or "").startswith("/static/")):
            self.foreign.append(self.get_starttag_text() or tag)

    def handle_data(self, data: str) -> None:
        if self._is_in_script and data.strip():
            self.foreign.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._is_in_script = False


def _empty() -> io.BytesIO:
    return io.BytesIO(b"")


def _signature() -> dict[str, Any]:
    field = {"name": EVIL, "dtype": EVIL, "shape": [-1], "nullable": False}
    return {"layout": "columns", "inputs": [field], "outputs": [field], "classes": [EVIL]}
