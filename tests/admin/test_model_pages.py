"""A model's page and its list: comparison, history, rollback, canary, files, and a thousand versions."""

import io
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from inference import traffic
from inference.queued.valkey import valkey
from inference.traffic import Asked
from models_registry import services
from models_registry.blobs import IncomingFile, store_bundle
from models_registry.models import Activation, Bundle, Deployment, ModelVersion, RegisteredModel
from models_registry.standing import Best, best_metrics
from tenants.models import Job, JobState, Tenant
from tests.clients import TenantClient

VERSIONS, MODELS = "admin/models_registry/modelversion", "admin/models_registry/registeredmodel"
MOST_QUERIES = 16
MOST_QUERIES_AT_HOME = 20  # to which every app has something to say
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def admin(here: Tenant, logged_in: Any) -> TenantClient:
    client: TenantClient = logged_in(here, "admin")
    return client


def text_of(client: TenantClient, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200, path
    page: str = response.content.decode()
    return page.replace("\xa0", " ")


def test_activating_shows_both_versions_side_by_side(admin: TenantClient, make_version: Any) -> None:
    first = make_version(metrics={"accuracy": 0.9, "rmse": 2.0, "only_here": 1})
    second = make_version(content=b"another", metrics={"accuracy": 0.95, "rmse": 2.5})
    services.activate(version=first, actor="tests")
    page = text_of(admin, f"{VERSIONS}/{second.pk}/activate/")
    assert "v1 now" in page
    assert "v2 then" in page
    assert '<span class="tny-label tny-success">+0.05</span>' in page
    assert '<span class="tny-label tny-danger">+0.5</span>' in page  # more of an error is worse
    assert "not given" in page
    assert "Compared with" not in text_of(admin, f"{VERSIONS}/{first.pk}/activate/")


def test_rolling_back_says_what_comes_back(admin: TenantClient, make_version: Any) -> None:
    first, second = make_version(metrics={"auc": 0.8}), make_version(content=b"another", metrics={"auc": 0.7})
    services.activate(version=first, actor="tests")
    page = f"{MODELS}/{first.model_id}/rollback/"
    assert "served nothing before" in text_of(admin, page)
    assert 'type="submit">' not in text_of(admin, page).split("tny-buttons")[1].split("Back")[0]
    services.activate(version=second, actor="tests")
    shown = text_of(admin, page)
    assert "v1, which served before, serves again." in shown
    assert "v2 now" in shown
    assert "v1 then" in shown


def test_the_history_is_a_timeline_with_reasons(admin: TenantClient, make_version: Any) -> None:
    first, second = make_version(), make_version(content=b"another")
    services.activate(version=first, actor="ann@acme.test", reason="It is the first.")
    services.activate(version=second, actor="ben@acme.test", reason=EVIL)
    services.deactivate(model=first.model, actor="ann@acme.test", reason="Maintenance.")
    page = text_of(admin, f"{MODELS}/{first.model_id}/change/")
    history = page.split("What served when")[1]
    words = ("nothing served", "Maintenance.", "v2", "ben@acme.test", "v1", "It is the first.")
    places = [history.index(word) for word in words]
    assert places == sorted(places)
    assert EVIL not in page


def test_a_canary_gets_its_percent(admin: TenantClient, make_version: Any) -> None:
    first, _ = make_version(), make_version(content=b"another")
    page = f"{MODELS}/{first.model_id}/deployment/"
    admin.post(page, {"serves": "1", "canary": "2", "percent": "10", "reason": "canary"})
    activation = Activation.objects.get()
    assert activation.routing["split"] == [{"version": 1, "percent": 90}, {"version": 2, "percent": 10}]
    shown = text_of(admin, page)
    assert 'value="10"' in shown
    assert "<title>v2: 10</title>" in shown
    admin.post(page, {"serves": "2", "canary": "", "percent": "10"})
    assert Deployment.objects.get().activation.version_number == 2


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"serves": ""}, "Choose the version"),
        ({"serves": "1", "canary": "2"}, "how many percent"),
        ({"serves": "1", "canary": "1", "percent": "10"}, "answers already"),
        ({"serves": "1", "canary": "2", "percent": "100"}, "less than or equal to 99"),
        ({"serves": "77"}, "Select a valid choice"),
    ],
)
def test_a_canary_that_makes_no_sense_is_refused(
    admin: TenantClient, make_version: Any, wrong: dict[str, str], told: str
) -> None:
    first, _ = make_version(), make_version(content=b"another")
    assert told in admin.post(f"{MODELS}/{first.model_id}/deployment/", wrong).content.decode()
    assert not Activation.objects.exists()


def test_deleting_says_what_depends_on_a_version(admin: TenantClient, here: Tenant, make_version: Any) -> None:
    version, free = make_version(), make_version(content=b"another")
    services.activate(version=version, actor="tests")
    services.set_alias(version=version, name="champion", actor="tests")
    job = Job.objects.create(tenant=here, kind="inference.batch", object_id=str(version.pk), state=JobState.RUNNING)
    page = text_of(admin, f"{VERSIONS}/{version.pk}/remove/")
    for told in ("answers 100 % of the requests", "champion", str(job.pk), "It cannot be done now"):
        assert told in page
    assert "It cannot be done now" not in text_of(admin, f"{VERSIONS}/{free.pk}/remove/")
    admin.post(f"{VERSIONS}/{version.pk}/remove/")
    assert ModelVersion.objects.filter(pk=version.pk).exists()
    assert "v1 serves: deactivate" in text_of(admin, f"{MODELS}/{version.model_id}/remove/")


@pytest.fixture
def folder(make_version: Any) -> ModelVersion:
    """A version of several files in folders."""
    version: ModelVersion = make_version()
    contents = {
        "MLmodel": b"flavors: {}\n",
        f"code/{EVIL.replace('/', '')}.py": f"x = '{EVIL}'".encode(),
        "code/deep/model.pkl": b"\x80\x04\0\xff",
        "latin.txt": "caf\xe9".encode("latin-1"),
        "long.txt": b"x" * (200 << 10),
        "empty.txt": b"",
    }
    bundle = store_bundle([IncomingFile(path, io.BytesIO(content)) for path, content in contents.items()])
    ModelVersion.objects.filter(pk=version.pk).update(bundle=bundle)
    return version


def test_a_versions_files_are_browsed_by_folder(admin: TenantClient, folder: ModelVersion) -> None:
    browser = f"{VERSIONS}/{folder.pk}/files/"
    top = text_of(admin, browser)
    assert "code/" in top
    assert "2 files" in top
    assert "model.pkl" not in top
    assert "model.pkl" in text_of(admin, f"{browser}?path=code/deep")
    assert "flavors: {}" in text_of(admin, f"{browser}?path=MLmodel")
    for path in ("code/deep/model.pkl", "latin.txt", "long.txt"):
        assert "It is no text, or a long one" in text_of(admin, f"{browser}?path={path}"), path
    assert "The file is empty." in text_of(admin, f"{browser}?path=empty.txt")
    admin.raise_request_exception = False
    for path in ("nothing", "../code", "cod"):
        assert admin.get(f"{browser}?path={path}").status_code == 404, path


def test_a_files_text_comes_out_as_text(admin: TenantClient, folder: ModelVersion) -> None:
    path = f"code/{EVIL.replace('/', '')}.py"
    page = admin.get(f"{VERSIONS}/{folder.pk}/files/", {"path": path}).content.decode()
    assert "x = &#x27;&lt;script&gt;" in page
    assert EVIL not in page
    assert "<script>alert" not in page


def test_an_inspection_shows_its_stages(admin: TenantClient, here: Tenant, make_version: Any) -> None:
    version = make_version(state="inspecting")
    job = Job.objects.get(object_id=version.pk)
    waiting = text_of(admin, f"{VERSIONS}/{version.pk}/change/")
    assert waiting.index("Waiting for a worker") < waiting.index("Fetching") < waiting.index("Compiling")
    assert 'tny-step-now" aria-current="step">\n            <strong>Waiting' in waiting
    Job.objects.filter(pk=job.pk).update(progress_percent=40.0, progress_stage="loading", state=JobState.RUNNING)
    page = text_of(admin, f"{VERSIONS}/{version.pk}/change/")
    assert 'aria-current="step">\n            <strong>Loading' in page
    assert page.count("tny-step-done") == 3
    assert page.count("tny-step-later") == 2
    assert "data-refresh-s" in page


def test_a_compiled_form_says_how_equal_it_is(admin: TenantClient, make_version: Any) -> None:
    version = make_version()
    verdict = {"state": "compiled", "sentence": "Compiled.", "rows": 1000, "max_difference": 1.5e-7, "one_row_us": 20.0}
    ModelVersion.objects.filter(pk=version.pk).update(compilation=verdict | {"original_one_row_us": 300.0})
    page = text_of(admin, f"{VERSIONS}/{version.pk}/change/")
    for shown in ("1,000 sample rows", "1.5e-07", "20 µs instead of 300"):
        assert shown in page


def test_the_best_metric_is_that_of_most_ready_versions(here: Tenant, make_version: Any) -> None:
    first = make_version(metrics={"rmse": 3.0, "note": 1})
    make_version(content=b"2", metrics={"rmse": 2.0})
    make_version(content=b"3", state="rejected", metrics={"rmse": 1.0})
    other = make_version("fraud", metrics={"accuracy": 0.9, "roc_auc": 0.8})
    plain = make_version("plain")
    found = best_metrics([first.model_id, other.model_id, plain.model_id])
    assert found == {first.model_id: Best("rmse", 2.0), other.model_id: Best("roc_auc", 0.8)}


def test_the_list_of_models_says_what_they_are_worth(admin: TenantClient, here: Tenant, make_version: Any) -> None:
    version = make_version(content=b"x" * 3000, metrics={"roc_auc": 0.91})
    services.activate(version=version, actor="tests")
    assert "Not lately" in text_of(admin, f"{MODELS}/")
    with valkey().pipeline() as pipeline:
        traffic.write(pipeline, [(here.schema_name, version.model.name, Asked(1, 0, 1))])
        pipeline.execute()
    page = text_of(admin, f"{MODELS}/")
    for shown in ("roc_auc 0.91", "2.9 KB", "v1", "<time"):
        assert shown in page
    assert "Not lately" not in page


@pytest.fixture
def thousand(here: Tenant) -> RegisteredModel:
    """A model with 1,000 versions, 300 of which were active."""
    bundle = Bundle.objects.create(digest="1" * 64, size_bytes=1)
    model = RegisteredModel.objects.create(name="n" * 100, last_number=1000)
    versions = ModelVersion.objects.bulk_create(
        ModelVersion(
            model=model, number=n, bundle=bundle, state="ready", metrics_reported={"auc": n / 1000, "rmse": 1 / n}
        )
        for n in range(1, 1001)
    )
    activations = Activation.objects.bulk_create(
        Activation(model=model, number=n, version=version, version_number=version.number, actor="tests")
        for n, version in enumerate(versions[:300], 1)
    )
    Deployment.objects.create(model=model, activation=activations[-1])
    return model


def test_a_thousand_versions_take_few_queries(admin: TenantClient, thousand: RegisteredModel) -> None:
    version = thousand.versions.get(number=1000)
    for path in (
        "admin/",
        "admin/usage/",
        f"{MODELS}/",
        f"{MODELS}/{thousand.pk}/change/",
        f"{MODELS}/{thousand.pk}/change/?history",
        f"{MODELS}/{thousand.pk}/deployment/",
        f"{MODELS}/{thousand.pk}/rollback/",
        f"{VERSIONS}/",
        f"{VERSIONS}/?model__id__exact={thousand.pk}",
        f"{VERSIONS}/{version.pk}/change/",
        f"{VERSIONS}/{version.pk}/activate/",
        f"{VERSIONS}/{version.pk}/remove/",
    ):
        with CaptureQueriesContext(connection) as queries:
            page = text_of(admin, path)
        most = MOST_QUERIES_AT_HOME if path in ("admin/", "admin/usage/") else MOST_QUERIES
        assert len(queries) <= most, (path, len(queries))
        assert len(page) < 500_000, (path, len(page))
    assert "auc 1" in text_of(admin, f"{MODELS}/")
