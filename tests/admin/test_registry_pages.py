"""Uploading, activating, rolling back and deleting by the pages of a tenant's admin."""

import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from models_registry.models import Activation, Alias, Deployment, ModelVersion, RegisteredModel, VersionState
from tenants.journal.models import AuditEvent
from tenants.models import Job, Tenant
from tests.clients import TenantClient

VERSIONS, MODELS = "admin/models_registry/modelversion", "admin/models_registry/registeredmodel"


@pytest.fixture
def admin(here: Tenant, logged_in: Any) -> TenantClient:
    client: TenantClient = logged_in(here, "admin")
    return client


def serving(model: RegisteredModel) -> int | None:
    deployment = Deployment.objects.select_related("activation").filter(model=model).first()
    return deployment.activation.version_number if deployment else None


def audited(action: str) -> list[str]:
    return list(AuditEvent.objects.filter(action=action, actor="admin@acme.test").values_list("target", flat=True))


def pickle_file(name: str = "model.pkl", content: bytes = b"pickled") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content)


def test_an_upload_makes_a_version_that_waits_for_its_inspection(admin: TenantClient) -> None:
    form = {
        "model": "churn",
        "file": pickle_file(),
        "metrics": '{"accuracy": 0.9}',
        "tags": '{"team": "growth"}',
        "labels": '["stays", "leaves"]',
        "description": "The first.",
    }
    response = admin.post(f"{VERSIONS}/add/", form)

    version = ModelVersion.objects.select_related("model", "bundle").get()
    assert response["Location"] == f"/t/acme/{VERSIONS}/{version.pk}/change/"
    assert (version.model.name, version.number, version.state) == ("churn", 1, VersionState.PENDING)
    assert version.metrics_reported == {"accuracy": 0.9}
    assert version.metadata == {"labels": ["stays", "leaves"]}
    assert [file.path for file in version.bundle.files.all()] == ["model.pkl"]
    assert Job.objects.filter(object_id=str(version.pk), kind="models_registry.inspect").exists()
    assert audited("version.upload") == ["churn v1"]
    page = admin.get(f"{VERSIONS}/{version.pk}/change/").content.decode()
    assert "data-refresh-s" in page


def test_a_folder_keeps_its_paths(admin: TenantClient) -> None:
    files = [pickle_file("MLmodel", b"flavors"), pickle_file("model.pkl"), pickle_file("data.csv", b"1")]
    paths = ["churn/MLmodel", "churn/model.pkl", "churn/artifacts/data.csv"]
    admin.post(f"{VERSIONS}/add/", {"model": "churn", "folder": files, "paths": json.dumps(paths)})
    stored = ModelVersion.objects.get().bundle.files.values_list("path", flat=True)
    assert set(stored) == {"MLmodel", "model.pkl", "artifacts/data.csv"}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"file": ""}, "Choose at least one file"),
        ({"model": "no spaces, please"}, "A name is 1 to 100"),
        ({"metrics": "{broken"}, "Enter a valid JSON"),
        ({"metrics": '{"accuracy": "high"}'}, "is not a finite number"),
        ({"model": ""}, "This field is required"),
    ],
)
def test_a_refused_upload_says_why_and_leaves_nothing(admin: TenantClient, wrong: dict[str, Any], told: str) -> None:
    response = admin.post(f"{VERSIONS}/add/", {"model": "churn", "file": pickle_file()} | wrong)
    assert response.status_code == 200
    assert told in response.content.decode()
    assert not ModelVersion.objects.exists()


def test_an_upload_over_the_quota_is_refused_in_a_sentence(admin: TenantClient, here: Tenant) -> None:
    Tenant.objects.filter(pk=here.pk).update(max_artifact_bytes=3)
    response = admin.post(f"{VERSIONS}/add/", {"model": "churn", "file": pickle_file(content=b"four")})
    assert "uploads have at most 3" in response.content.decode()


def test_activating_asks_first_and_keeps_the_reason(admin: TenantClient, make_version: Any) -> None:
    version = make_version(metrics={"accuracy": 0.9})
    path = f"{VERSIONS}/{version.pk}/activate/"
    assert "Nothing serves for churn now" in admin.get(path).content.decode()
    assert serving(version.model) is None

    response = admin.post(path, {"reason": "It is the first."})
    assert response["Location"] == f"/t/acme/{VERSIONS}/{version.pk}/change/"
    activation = Activation.objects.get()
    assert (activation.version_number, activation.reason, activation.actor) == (
        1,
        "It is the first.",
        "admin@acme.test",
    )
    assert audited("version.activate") == ["churn v1"]
    assert "churn v1 serves now." in admin.get(f"{VERSIONS}/").content.decode()


def test_a_version_that_is_not_ready_is_not_activated(admin: TenantClient, make_version: Any) -> None:
    version = make_version(state="rejected")
    response = admin.post(f"{VERSIONS}/{version.pk}/activate/", {"reason": ""})
    assert "not ready" in response.content.decode()
    assert serving(version.model) is None


def test_rolling_back_and_deactivating(admin: TenantClient, make_version: Any) -> None:
    first, second = make_version(), make_version(content=b"another")
    for version in (first, second):
        admin.post(f"{VERSIONS}/{version.pk}/activate/", {"reason": ""})
    model = f"{MODELS}/{first.model_id}"

    admin.post(f"{model}/rollback/", {"reason": "It was worse."})
    assert serving(first.model) == 1
    assert audited("model.rollback") == ["churn v1"]

    admin.post(f"{model}/deactivate/", {"reason": "Maintenance."})
    assert serving(first.model) is None
    assert audited("model.deactivate") == ["churn"]


def test_activating_the_best_explains_its_choice(admin: TenantClient, make_version: Any) -> None:
    make_version(metrics={"accuracy": 0.8})
    best = make_version(content=b"better", metrics={"accuracy": 0.9})
    form = {"metric": "accuracy", "direction": "max", "reason": ""}
    response = admin.post(f"{MODELS}/{best.model_id}/activate-best/", form)
    assert serving(best.model) == 2
    told = admin.get(response["Location"].removeprefix("/t/acme/")).content.decode()
    assert "churn v2 has the highest accuracy" in told


def test_an_alias_is_set_moved_and_removed(admin: TenantClient, make_version: Any) -> None:
    first, _ = make_version(), make_version(content=b"another")
    path = f"{MODELS}/{first.model_id}/alias/"
    admin.post(path, {"name": "champion", "version": "1"})
    admin.post(path, {"name": "champion", "version": "2"})
    assert Alias.objects.get().version.number == 2
    admin.post(path, {"name": "champion", "version": ""})
    assert not Alias.objects.exists()
    assert audited("alias.delete") == ["churn@champion"]


def test_deleting_asks_and_refuses_what_serves(admin: TenantClient, make_version: Any) -> None:
    served, other = make_version(), make_version(content=b"another")
    admin.post(f"{VERSIONS}/{served.pk}/activate/", {"reason": ""})
    for version in (served, other):
        assert "is not used again" in admin.get(f"{VERSIONS}/{version.pk}/remove/").content.decode()

    assert "is active" in admin.post(f"{VERSIONS}/{served.pk}/remove/").content.decode()
    assert "is active" in admin.post(f"{MODELS}/{served.model_id}/remove/").content.decode()
    admin.post(f"{VERSIONS}/{other.pk}/remove/")
    assert list(ModelVersion.objects.all()) == [served]
    assert audited("version.delete") == ["churn v2"]


def test_a_model_is_made_edited_and_deleted(admin: TenantClient) -> None:
    admin.post(f"{MODELS}/add/", {"name": "churn", "task": "classification", "tags": '{"team": "growth"}'})
    model = RegisteredModel.objects.get()
    admin.post(f"{MODELS}/{model.pk}/edit/", {"task": "", "description": "Who leaves.", "tags": ""})
    model.refresh_from_db()
    assert (model.description, model.tags, model.task) == ("Who leaves.", {}, "")
    admin.post(f"{MODELS}/{model.pk}/remove/")
    assert not RegisteredModel.objects.exists()
    assert audited("model.delete") == ["churn"]


def test_an_existing_model_is_not_made_again(admin: TenantClient) -> None:
    admin.post(f"{MODELS}/add/", {"name": "churn"})
    assert "There is a model" in admin.post(f"{MODELS}/add/", {"name": "churn"}).content.decode()


def test_a_versions_page_shows_what_inspection_found(admin: TenantClient, make_version: Any) -> None:
    version = make_version(metrics={"accuracy": 0.987654321}, params={"max_depth": 6})
    page = admin.get(f"{VERSIONS}/{version.pk}/change/").content.decode()
    for shown in ("RandomForestClassifier", "scikit-learn 1.9.0", "age", "stays, leaves", "0.987654", "max_depth"):
        assert shown in page
    assert "model.pkl" in page
    assert "/t/acme/api/v1/models/churn/versions/1/files/model.pkl" in page
    assert "data-refresh-s" not in page


def test_a_versions_page_shows_the_scanners_advice(admin: TenantClient, make_version: Any) -> None:
    version = make_version()
    version.inspection |= {"scan": {"scanner": "picklescan 1.0", "findings": ["a.pkl imports os.<b>system</b>."]}}
    version.save(update_fields=["inspection"])

    page = admin.get(f"{VERSIONS}/{version.pk}/change/").content.decode()

    assert "picklescan 1.0: a.pkl imports os.&lt;b&gt;system&lt;/b&gt;." in page


def test_a_rejected_version_says_why(admin: TenantClient, make_version: Any) -> None:
    version = make_version(state="rejected")
    ModelVersion.objects.filter(pk=version.pk).update(rejection_reason="It imports os.", rejection_code="unsafe")
    assert "It imports os." in admin.get(f"{VERSIONS}/{version.pk}/change/").content.decode()
    assert "It imports os." in admin.get("admin/").content.decode()


def test_the_download_is_the_file_as_it_was_uploaded(admin: TenantClient, make_version: Any) -> None:
    version = make_version(content=b"the very bytes")
    place = admin.get(f"{VERSIONS}/{version.pk}/download/")["Location"]
    response: Any = admin.get(place.removeprefix("/t/acme/"))
    assert b"".join(response.streaming_content) == b"the very bytes"


def test_filters_and_search_find_versions(admin: TenantClient, make_version: Any) -> None:
    make_version("churn")
    make_version("fraud", state="rejected")
    for query, found, missing in (
        ("state__exact=rejected", "fraud v1", "churn v1"),
        ("format__exact=sklearn-pickle&q=churn", "churn v1", "fraud v1"),
    ):
        page = admin.get(f"{VERSIONS}/?{query}").content.decode()
        assert found in page
        assert missing not in page
    assert "Nothing here matches." in admin.get(f"{VERSIONS}/?q=nothing-like-it").content.decode()


def test_an_empty_format_is_no_choice_of_the_filter(admin: TenantClient, make_version: Any) -> None:
    unknown = make_version("fraud", state="rejected")
    make_version("churn")
    ModelVersion.objects.filter(pk=unknown.pk).update(format="")
    page = admin.get(f"{VERSIONS}/").content.decode()
    assert "?format=sklearn-pickle" in page
    assert '?format="' not in page


def test_the_home_shows_what_serves(admin: TenantClient, make_version: Any) -> None:
    assert "Nothing serves yet." in admin.get("admin/").content.decode()
    version = make_version(metrics={"accuracy": 0.9})
    admin.post(f"{VERSIONS}/{version.pk}/activate/", {"reason": ""})
    page = admin.get("admin/").content.decode()
    assert "accuracy 0.9" in page
    assert f"{timezone.now():%Y-%m-%d}" in page


def test_where_requests_go_is_said_on_a_page_of_its_own(admin: TenantClient, make_version: Any) -> None:
    first, _ = make_version(), make_version(content=b"another")
    page = f"{MODELS}/{first.model_id}"
    said = {"split": "1: 90, v2: 10 %", "shadow": "", "lane": "queue", "pinned": "on", "limits": '{"rows": 10}'}
    assert admin.post(f"{page}/deployment/", said | {"reason": "canary"}).status_code == 302
    activation = Activation.objects.get()
    assert (activation.version_number, activation.reason) == (1, "canary")
    assert activation.routing == {
        "split": [{"version": 1, "percent": 90}, {"version": 2, "percent": 10}],
        "lane": "queue",
        "pinned": True,
        "limits": {"rows": 10},
    }
    shown = admin.get(f"{page}/change/").content.decode()
    assert "v1 90 %, v2 10 %" in shown
    assert 'value="10"' in admin.get(f"{page}/deployment/").content.decode()
    admin.post(f"{page}/deployment/", {"split": "2: 100", "shadow": "1", "sampled": "5", "reason": ""})
    assert Activation.objects.first().routing == {"shadow": {"version": 1, "percent": 5}}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"split": "1: 90"}, "sum to 100"),
        ({"split": "one"}, "is no share"),
        ({"split": "9: 100"}, "no version 9"),
        ({"split": "1: 100", "shadow": "1"}, "no version shadows itself"),
        ({"split": "1: 100", "limits": '{"rows": 0}'}, "rows: "),
        ({"split": "1: 100", "limits": "[]"}, "non_field_errors"),
    ],
)
def test_a_route_that_makes_no_sense_is_refused_in_words(
    admin: TenantClient, make_version: Any, wrong: dict[str, Any], told: str
) -> None:
    version = make_version()
    response = admin.post(f"{MODELS}/{version.model_id}/deployment/", {"reason": ""} | wrong)
    assert response.status_code == 200
    assert told in response.content.decode()
    assert not Activation.objects.exists()
