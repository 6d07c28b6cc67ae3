"""Datasets and runs by the pages of a tenant's admin."""

import io
import json
import uuid
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from runtimes.trainers import TRAINERS
from tenants.journal.models import AuditEvent
from tenants.models import Job, JobState, Tenant
from tests.clients import TenantClient
from training.admin.run_forms import RunForm
from training.admin.trainer_fields import written_dimension
from training.external_runs import Logged, LoggedMetric, begin_run, keep_artifact
from training.models import Dataset, DatasetVersion, Purpose, Run

RUNS, SEARCHES, DATASETS = "admin/training/run", "admin/training/search", "admin/training/dataset"
HOSTILE = "<script>alert(1)</script>"
CSV = b"age,left\n31,no\n52,yes\n40,no\n"


@pytest.fixture
def scientist(here: Tenant, logged_in: Any) -> TenantClient:
    client: TenantClient = logged_in(here, "data_scientist")
    return client


@pytest.fixture
def dataset(scientist: TenantClient) -> Dataset:
    scientist.post(f"{DATASETS}/add/", {"name": "churn", "file": SimpleUploadedFile("churn.csv", CSV)})
    return Dataset.objects.get()


def start(client: TenantClient, **changes: Any) -> Any:
    form = {"trainer": "logistic_regression", "dataset": "churn", "target": "left", "model": "churn"}
    return client.post(f"{RUNS}/add/", form | changes)


def test_a_dataset_is_uploaded_and_previewed(scientist: TenantClient, dataset: Dataset) -> None:
    version = DatasetVersion.objects.get()
    assert (version.row_count, version.columns) == (3, ["age", "left"])
    page = scientist.get(f"{DATASETS}/{dataset.pk}/change/").content.decode()
    assert "<td>52</td>" in page
    assert AuditEvent.objects.filter(action="dataset.upload", actor="data_scientist@acme.test").exists()


def test_a_file_that_is_no_table_is_refused(scientist: TenantClient) -> None:
    response = scientist.post(f"{DATASETS}/add/", {"name": "churn", "file": SimpleUploadedFile("x.csv", b"a,b\n1\n")})
    assert response.status_code == 200
    assert 'role="alert"' in response.content.decode()
    assert not Dataset.objects.exists()


def test_a_run_is_started_and_cancelled(scientist: TenantClient, dataset: Dataset) -> None:
    response = start(scientist, **{"params.C": "0.5"})
    run = Run.objects.select_related("job").get()
    assert response["Location"] == f"/t/acme/{RUNS}/{run.pk}/change/"
    assert (run.state, run.params["C"], run.target) == ("queued", 0.5, "left")
    page = scientist.get(f"{RUNS}/{run.pk}/change/").content.decode()
    assert "data-refresh-s" in page
    assert "/cancel/" in page

    scientist.post(f"{RUNS}/{run.pk}/cancel/")
    assert Job.objects.get(pk=run.pk).state == JobState.CANCELLED
    assert "/cancel/" not in scientist.get(f"{RUNS}/{run.pk}/change/").content.decode()
    assert AuditEvent.objects.filter(action="run.cancel", actor="data_scientist@acme.test").exists()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"target": "gone"}, "has no column"),
        ({"params.C": "-1"}, "greater than 0"),
        ({"params.C": "many"}, "Enter a number"),
        ({"validation.kind": "kfold", "validation.folds": "1"}, "greater than or equal to 2"),
        ({"model": "no spaces"}, "name is 1 to 100"),
    ],
)
def test_a_run_that_cannot_be_is_refused_at_its_field(
    scientist: TenantClient, dataset: Dataset, wrong: dict[str, str], told: str
) -> None:
    response = start(scientist, **wrong)
    assert response.status_code == 200
    assert told in response.content.decode()
    assert not Run.objects.exists()


def test_only_who_may_activate_is_asked_whether_to(
    here: Tenant, scientist: TenantClient, dataset: Dataset, logged_in: Any
) -> None:
    assert "activate_if" not in scientist.get(f"{RUNS}/add/").content.decode()
    start(scientist, **{"activate_if.metric": "accuracy"})
    assert Run.objects.get().activate_if is None
    admin = logged_in(here, "admin")
    start(admin, **{"activate_if.metric": "accuracy", "activate_if.margin": "0.1"})
    found = Run.objects.order_by("-created_at")[0]
    assert found.activate_if == {"metric": "accuracy", "margin": 0.1, "direction": "max"}


@pytest.mark.parametrize("trainer", sorted(name for name, trainer in TRAINERS.items() if trainer.task != "detection"))
def test_the_form_of_every_trainer_starts_with_its_defaults(
    scientist: TenantClient, dataset: Dataset, trainer: str
) -> None:
    page = scientist.get(f"{RUNS}/add/?trainer={trainer}&dataset=churn").content.decode()
    said = {name: field.initial for name, field in RunForm(initial={"trainer": trainer}).fields.items()}
    for name in TRAINERS[trainer].Params.model_fields:
        assert f'name="params.{name}"' in page
    sent = {
        name: json.dumps(value) if isinstance(value, list) else value
        for name, value in said.items()
        if name.startswith("params.") and value is not None and value is not False
    }
    start(scientist, trainer=trainer, **sent)
    assert Run.objects.get().params == TRAINERS[trainer].Params().model_dump(mode="json")


def test_the_list_says_what_each_run_is(scientist: TenantClient, dataset: Dataset) -> None:
    start(scientist)
    row = scientist.get(f"{RUNS}/").content.decode().split('id="result_list"')[1]
    assert TRAINERS["logistic_regression"].title in row


def test_a_run_is_started_again_with_what_it_was_asked(scientist: TenantClient, dataset: Dataset) -> None:
    start(scientist, **{"params.C": "0.25", "validation.kind": "kfold", "validation.folds": "3"})
    again = scientist.get(f"{RUNS}/{Run.objects.get().pk}/again/")
    page = scientist.get(again["Location"].removeprefix("/t/acme/")).content.decode()
    assert 'value="0.25"' in page
    assert '<option value="kfold" selected' in page
    assert 'value="left"' in page


EVALUATION = {
    "rows": 10,
    "metrics": {"accuracy": 0.8},
    "folds": [{"accuracy": 0.7}, {"accuracy": 0.9}],
    "confusion": {"labels": ["no", HOSTILE], "counts": [[4, 1], [1, 4]]},
    "roc": [{"label": HOSTILE, "false_rates": [0, 0.5, 1], "true_rates": [0, 0.9, 1]}],
    "residuals": {"edges": [-1, 0, 1], "counts": [3, 4]},
    "misses": [{"predicted": 1.0, "residual": 0.5}, {"predicted": 2.0, "residual": -0.5}],
    "importance": [{"column": HOSTILE, "mean": 0.2, "std": 0.1}],
}


@pytest.fixture
def runs(here: Tenant) -> list[Run]:
    """Two runs that have ended, with all that runs may have and names that attack."""
    made = [
        begin_run(
            name=f"{HOSTILE}{number}",
            experiment="first",
            model="churn",
            started_at=None,
            logged=Logged(
                params={"depth": number, HOSTILE: "same", "large": 10**400, "long": "x" * 6_000},
                metrics=[LoggedMetric(HOSTILE, step * 0.1, step, timezone.now()) for step in range(5)],
                tags={HOSTILE: HOSTILE},
                inputs=[{"name": HOSTILE, "digest": "d"}],
            ),
            actor=HOSTILE,
        )
        for number in range(2)
    ]
    Run.objects.all().update(evaluation=EVALUATION, external_state="succeeded", finished_at=timezone.now())
    return made


def test_a_run_shows_all_that_was_measured(scientist: TenantClient, runs: list[Run]) -> None:
    keep_artifact(run=runs[0], path="plots/a b.txt", file=io.BytesIO(b"text"), size_bytes=4)
    page = scientist.get(f"{RUNS}/{runs[0].pk}/change/").content.decode()
    for title in ("Confusion matrix", "ROC", "Residuals", "Residuals by prediction", "What matters", "Folds"):
        assert f"<h2>{title}</h2>" in page
    assert page.count('<svg class="tny-plot"') >= 6
    assert HOSTILE not in page
    file: Any = scientist.get(f"{RUNS}/{runs[0].pk}/files/plots/a%20b.txt")
    assert b"".join(file.streaming_content) == b"text"


def test_chosen_runs_are_compared(scientist: TenantClient, runs: list[Run]) -> None:
    chosen = {"action": "compare", "_selected_action": [str(run.pk) for run in runs]}
    answer = scientist.post(f"{RUNS}/", chosen)
    assert "/admin/training/run/compare/?ids=" in answer["Location"]
    page = scientist.get(answer["Location"].removeprefix("/t/acme/")).content.decode()
    assert '<strong class="tny-differs" title="It differs">depth</strong>' in page
    assert page.count("Confusion matrix of") == 2
    assert "tny-line-1" in page
    assert HOSTILE not in page
    one = scientist.get(f"{RUNS}/compare/?ids={runs[0].pk}")
    assert one["Location"].endswith("/admin/training/run/")
    scientist.raise_request_exception = False
    assert scientist.get(f"{RUNS}/compare/?ids={runs[0].pk},{uuid.uuid4()}").status_code == 404


def test_another_tenants_runs_are_not_compared(
    scientist: TenantClient, runs: list[Run], globex: Tenant, logged_in: Any
) -> None:
    stranger = logged_in(globex, "admin")
    stranger.raise_request_exception = False
    assert stranger.get(f"{RUNS}/compare/?ids={runs[0].pk},{runs[1].pk}").status_code == 404


def test_a_search_is_started_shown_and_cancelled(scientist: TenantClient, dataset: Dataset) -> None:
    form = {
        "trainer": "random_forest_classifier", "dataset": "churn", "target": "left", "model": "churn",
        "space.n_estimators": "5..50", "space.max_features": "sqrt, log2", "space.max_depth": "7",
        "metric": "roc_auc", "method": "random", "trials": "8", "prune": "on",
    }  # fmt: skip
    answer = scientist.post(f"{SEARCHES}/add/", form)
    search: Any = Run.objects.get()
    assert answer["Location"] == f"/t/acme/{SEARCHES}/{search.pk}/change/"
    assert search.search["space"] == {
        "n_estimators": {"low": 5, "high": 50, "log": False},
        "max_features": ["sqrt", "log2"],
    }
    assert search.params["max_depth"] == 7
    for number in range(3):
        told = {
            "number": number,
            "params": {"n_estimators": 5 + number, "max_features": HOSTILE},
            "value": 0.1 * number,
        }
        job = Job.objects.create(tenant=search.job.tenant, kind="training.run", object_id="x", state="succeeded")
        Run.objects.create(id=job.pk, job=job, parent=search, purpose=Purpose.TRIAL, search=told)
    page = scientist.get(f"{SEARCHES}/{search.pk}/change/").content.decode()
    assert "data-refresh-s" in page
    assert "3 of 8" in page
    assert "trial 2: 0.2" in page
    assert page.count('r="7"') == 2  # the best trial stands out in both plots
    assert HOSTILE not in page
    scientist.raise_request_exception = False
    assert scientist.get(f"{RUNS}/{search.pk}/change/").status_code == 404
    listed = scientist.get(f"{RUNS}/").content.decode()
    assert "Trial 1" not in listed
    assert "Trial 1" in scientist.get(f"{RUNS}/?purpose__exact=trial").content.decode()
    scientist.raise_request_exception = True
    scientist.post(f"{SEARCHES}/{search.pk}/cancel/")
    assert Job.objects.get(pk=search.pk).state == JobState.CANCELLED


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"space.C": "1, -1"}, "greater than 0"),
        ({"space.C": "-5"}, "greater than 0"),
        ({"space.C": ""}, "1 to 20 parameters"),
        ({"trials": "501"}, "less than or equal to 500"),
    ],
    ids=["value", "fixed", "empty", "trials"],
)
def test_a_search_that_cannot_be_is_refused_at_its_field(
    scientist: TenantClient, dataset: Dataset, wrong: dict[str, str], told: str
) -> None:
    form = {
        "trainer": "logistic_regression", "dataset": "churn", "target": "left", "model": "churn",
        "space.C": "0.1..10 log", "space.max_iter": "100", "metric": "roc_auc", "method": "random", "trials": "8",
    }  # fmt: skip
    page = scientist.post(f"{SEARCHES}/add/", form | wrong).content.decode()
    assert told in page
    assert not Run.objects.exists()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("200", 200),
        ("50, 100", [50, 100]),
        ("2..12", {"low": 2, "high": 12, "log": False}),
        ("0.001 .. 0.3 log", {"low": 0.001, "high": 0.3, "log": True}),
        ("1..9 steps 3", {"low": 1, "high": 9, "log": False, "steps": 3}),
        ("sqrt, log2", ["sqrt", "log2"]),
        ("[64, 32], [32]", [[64, 32], [32]]),
        ("[" * 100_000, "[" * 100_000),
    ],
    ids=["value", "values", "range", "log", "steps", "words", "lists", "deep"],
)
def test_what_is_written_of_a_parameter_is_understood(text: str, value: Any) -> None:
    assert written_dimension(text) == value


def test_a_dataset_that_a_run_used_is_kept(scientist: TenantClient, dataset: Dataset) -> None:
    start(scientist)
    assert "was used by" in scientist.post(f"{DATASETS}/{dataset.pk}/remove/").content.decode()
    Run.objects.all().delete()
    scientist.post(f"{DATASETS}/{dataset.pk}/remove/")
    assert not Dataset.objects.exists()


def test_a_failed_run_says_why(scientist: TenantClient, dataset: Dataset) -> None:
    start(scientist)
    run = Run.objects.get()
    Job.objects.filter(pk=run.pk).update(
        state=JobState.FAILED, error_code="invalid_data", error_message="One class only."
    )
    assert "One class only." in scientist.get(f"{RUNS}/{run.pk}/change/").content.decode()
