"""Every kind of page in a real browser: nothing serious for axe-core, nothing against the policy, nothing too wide."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page

from benchmarks.crowd import BUSY, LONG, fill
from clients.screenshots.browser import NoBrowser
from documents.models import Document, DocumentPage
from documents.page_files import PageRead, store_page
from inference.queued.valkey import valkey
from models_registry.models import ModelVersion, RegisteredModel
from runtimes.detection import Detection
from runtimes.page_work import PageImage
from runtimes.png_files import png_of
from tenants.models import Tenant
from tests.admin.in_browser import faults_of, listen, walked
from training.models import Dataset, Run, RunMetric, Search

REGISTRY = "models_registry"


@pytest.fixture
def crowded(here: Tenant) -> Iterator[Tenant]:
    """A tenant with some of everything."""
    fill(here, versions=60, runs=24, others=12)
    rgb = np.full((60, 40, 3), 200, np.uint8)
    read = PageRead(PageImage(rgb, png_of(rgb), 30.0, 45.0), [Detection("title", 0.9, (4.0, 4.0, 30.0, 12.0))])
    DocumentPage.objects.filter(number=1).update(bundle=store_page(1, read))
    yield here
    for key in valkey().scan_iter(f"tenantry:{here.schema_name}:*"):
        valkey().delete(key)


def tenant_pages() -> list[str]:
    """A page of each kind, below the tenant's admin."""
    busy, long = (RegisteredModel.objects.get(name=name).pk for name in (BUSY, LONG))
    ready = ModelVersion.objects.filter(model=busy, state="ready").order_by("number")[0].pk
    rejected = ModelVersion.objects.filter(model=busy, state="rejected")[0].pk
    run = RunMetric.objects.values_list("run", flat=True)[0]
    fits = Run.objects.filter(purpose="fit").values_list("pk", flat=True)[:3]
    dataset, search = Dataset.objects.get(name="customers-0").pk, Search.objects.filter(trials__isnull=False)[0].pk
    document = Document.objects.order_by("created_at")[0].pk
    return [
        "",
        f"{REGISTRY}/registeredmodel/",
        f"{REGISTRY}/registeredmodel/{busy}/change/",
        f"{REGISTRY}/registeredmodel/{long}/change/",
        f"{REGISTRY}/registeredmodel/{busy}/deployment/",
        f"{REGISTRY}/modelversion/",
        f"{REGISTRY}/modelversion/add/",
        f"{REGISTRY}/modelversion/{ready}/change/",
        f"{REGISTRY}/modelversion/{rejected}/change/",
        f"{REGISTRY}/modelversion/{ready}/activate/",
        f"{REGISTRY}/modelversion/{ready}/try/",
        "training/run/",
        "training/run/add/",
        f"training/run/{run}/change/",
        f"training/run/compare/?ids={','.join(map(str, fits))}",
        f"training/search/{search}/change/",
        f"training/dataset/{dataset}/change/",
        "inference/batchjob/",
        f"documents/document/{document}/change/",
        f"documents/document/{document}/pages/1/",
        "tenants/apitoken/add/",
        "journal/auditevent/",
        "usage/",
    ]


def operator_pages(tenant: Tenant) -> list[str]:
    """The operator's pages whose blocks no tenant's have."""
    return ["", "tenants/tenant/", f"tenants/tenant/{tenant.pk}/change/", "workers/", "tenants-usage/", "versions/"]


def test_every_kind_of_page_is_sound_in_a_browser(crowded: Tenant, logged_in: Any) -> None:
    """One test, since one tenant is filled for all of it."""
    clients = [logged_in(crowded, "admin"), logged_in()]
    addresses = [f"{crowded.base_path}/admin/{path}" for path in tenant_pages()]
    addresses += [f"/admin/{path}" for path in operator_pages(crowded)]

    def walk(page: Page) -> list[str]:
        complaints = listen(page)
        return [f"{address}: {fault}" for address in addresses for fault in faults_of(page, address)] + complaints

    try:
        found = walked(clients, walk)
    except NoBrowser as error:
        pytest.skip(str(error))
    assert not found, "\n".join(found)
