"""What the filters of lists offer."""

import re
from typing import Any

import pytest

from models_registry.models import Bundle, ModelVersion, RegisteredModel
from tenants.models import Tenant
from tenants.site.filters import MOST_CHOICES
from tests.clients import TenantClient

VERSIONS = "admin/models_registry/modelversion/"


def models(count: int) -> list[RegisteredModel]:
    """So many models with a version each."""
    bundle = Bundle.objects.create(digest="0" * 64, size_bytes=1)
    made = RegisteredModel.objects.bulk_create(RegisteredModel(name=f"model-{number}") for number in range(count))
    ModelVersion.objects.bulk_create(ModelVersion(model=model, number=1, bundle=bundle) for model in made)
    return made


def choices(client: TenantClient, query: str = "") -> int:
    """How many models the filter offers to choose."""
    page = client.get(f"{VERSIONS}{query}").content.decode()
    return len(set(re.findall(r'href="\?model__id__exact=([0-9a-f-]+)"', page)))


@pytest.fixture
def admin(here: Tenant, logged_in: Any) -> TenantClient:
    client: TenantClient = logged_in(here, "admin")
    return client


def test_a_few_objects_are_offered_and_of_many_the_chosen_one_alone(admin: TenantClient) -> None:
    models(3)
    RegisteredModel.objects.create(name="without-a-version")
    assert choices(admin) == 3
    ModelVersion.objects.all().delete()
    RegisteredModel.objects.all().delete()
    Bundle.objects.all().delete()

    chosen = models(MOST_CHOICES + 1)[-1]
    assert choices(admin) == 0
    page = admin.get(f"{VERSIONS}?model__id__exact={chosen.pk}").content.decode()
    assert f"{chosen.name} v1" in page
    assert "model-0 v1" not in page
    assert choices(admin, f"?model__id__exact={chosen.pk}") == 1


@pytest.mark.parametrize("made_up", ["nothing", "'; --", "00000000-0000-0000-0000-000000000000"])
def test_a_made_up_choice_is_no_fault_of_the_server(admin: TenantClient, made_up: str) -> None:
    models(MOST_CHOICES + 1)
    assert admin.get(VERSIONS, {"model__id__exact": made_up}).status_code in (200, 302)
