"""Versions are measured on datasets, and programs of one's own are run."""

import io
import json
import zipfile

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from models_registry import execution as registry_execution
from models_registry.models import ModelVersion
from tenants import jobs
from tenants.models import Job
from tenants.scope import tenant_scope
from tests.training.conftest import customers, run_body, upload
from training import execution

pytestmark = pytest.mark.usefixtures("model_host")
PROGRAM = """
from sklearn.linear_model import LogisticRegression

def train(data, target, params, report):
    print("hello from", len(data), "rows")
    report(50, "half", {"loss": 0.5})
    model = LogisticRegression(C=params.get("C", 1.0)).fit(data[["age", "spent"]], data[target])
    return {"model": model, "metrics": {"accuracy": 0.99}}
"""


def worked(tenant, run):
    with tenant_scope(tenant):
        jobs.work_on(run["id"], execution.work)


def inspected(tenant):
    with tenant_scope(tenant):
        for job in Job.objects.filter(tenant=tenant, kind="models_registry.inspect", state="queued"):
            jobs.work_on(str(job.pk), registry_execution.inspect)


@pytest.fixture
def version(acme, scientist):
    """A ready version fitted on `customers`."""
    upload(scientist)
    run = scientist.post_json("api/v1/runs", run_body()).json()
    worked(acme, run)
    inspected(acme)
    return scientist.get("api/v1/models/churn/versions/1").json()


def test_a_version_is_measured_on_a_dataset(acme, scientist, version):
    upload(scientist, "newcomers", customers(seed=9))
    answer = scientist.post_json("api/v1/models/churn/versions/1/evaluate", {"dataset": "newcomers", "target": "left"})
    assert answer.status_code == 202, answer.content
    run = answer.json()
    assert (run["purpose"], run["version"]) == ("evaluation", 1)
    worked(acme, run)
    run = scientist.get(answer["Location"].removeprefix("/t/acme/")).json()
    assert run["state"] == "succeeded", run["error"]
    assert run["metrics"].keys() == {"accuracy", "f1", "log_loss", "roc_auc"}
    shown = scientist.get("api/v1/models/churn/versions/1").json()
    assert shown["metrics_measured"] == run["metrics"]
    assert shown["measured_on"]["dataset"] == "newcomers"
    evaluation = scientist.get(f"api/v1/runs/{run['id']}/evaluation").json()
    assert evaluation["rows"] == 200
    assert evaluation["confusion"]["labels"] == ["no", "yes"]
    admin_says = scientist.post_json("api/v1/activate-best", {"model": "churn", "metric": "f1", "direction": "max"})
    assert admin_says.status_code == 403


def test_the_best_version_says_what_it_was_measured_on(acme, scientist, version, client_for):
    body = {"model": "churn", "metric": "accuracy", "direction": "max", "dataset": "customers"}
    answer = client_for(acme, "admin").post_json("api/v1/activate-best", body).json()
    assert "measured" in json.dumps(answer)
    assert "customers@" in json.dumps(answer)


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"dataset": "gone", "target": "left"}, 422, "no dataset"),
        ({"dataset": "customers", "target": "gone"}, 422, "no column"),
        ({"dataset": "customers"}, 422, "required"),
    ],
    ids=["dataset", "target", "nothing"],
)
def test_what_cannot_be_measured_is_refused(scientist, version, body, status, told):
    answer = scientist.post_json("api/v1/models/churn/versions/1/evaluate", body)
    assert answer.status_code == status
    assert told in json.dumps(answer.json()["error"]["fields"])


def test_a_dataset_that_does_not_fit_the_version_fails_the_run(acme, scientist, version):
    upload(scientist, "other", b"size,left\n1,yes\n2,no\n")
    body = {"dataset": "other", "target": "left"}
    run = scientist.post_json("api/v1/models/churn/versions/1/evaluate", body).json()
    worked(acme, run)
    shown = scientist.get(f"api/v1/runs/{run['id']}").json()
    assert (shown["state"], shown["error"]["code"]) == ("failed", "invalid_dataset")
    assert "lacks the column 'age'" in shown["error"]["message"]


def zipped(compression=zipfile.ZIP_STORED, **files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/").replace("_py", ".py"), text)
    return out.getvalue()


def send(client, code, **changes):
    run = run_body(trainer=None, validation=None, **changes)
    file = SimpleUploadedFile("program.zip", code, "application/zip")
    return client.post("api/v1/runs/custom", {"run": json.dumps(run), "code": file})


def test_a_program_of_ones_own_makes_a_version(acme, scientist):
    upload(scientist)
    answer = send(scientist, zipped(train_py=PROGRAM))
    assert answer.status_code == 202, answer.content
    run = answer.json()
    assert run["trainer"] == "custom"
    worked(acme, run)
    shown = scientist.get(f"api/v1/runs/{run['id']}").json()
    assert shown["state"] == "succeeded", shown["error"]
    assert (shown["metrics"], shown["metrics_reported"]) == ({}, {"accuracy": 0.99})
    assert any("hello from 200 rows" in line for line in scientist.get(f"api/v1/runs/{run['id']}/logs").json()["lines"])
    history = scientist.get(f"api/v1/runs/{run['id']}/metrics?key=loss").json()["results"]
    assert [row["value"] for row in history] == [0.5]
    inspected(acme)
    with tenant_scope(acme):
        version = ModelVersion.objects.get()
        assert version.is_ready, version.rejection_reason
        assert (version.metrics_reported, version.metrics_measured) == ({"accuracy": 0.99}, {})


def test_the_same_program_and_run_have_the_same_digests(scientist):
    upload(scientist)
    first, second = (send(scientist, zipped(train_py=PROGRAM)).json() for _ in range(2))
    assert first["code_digest"] == second["code_digest"]
    assert first["code_digest"] != send(scientist, zipped(train_py=PROGRAM + "#")).json()["code_digest"]


def damaged():
    """A zip whose directory is whole and whose one file is not."""
    content = bytearray(zipped(train_py=PROGRAM, compression=zipfile.ZIP_DEFLATED))
    content[40:80] = b"\xff" * 40
    return bytes(content)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (b"no zip", "no zip file"),
        (damaged(), "no zip file"),
        (zipped(other_py=""), "it needs a train.py"),
        (zipped(**{"../train_py": ""}), ".."),
    ],
    ids=["no zip", "damaged", "no entry", "outside"],
)
def test_what_is_no_program_is_refused(scientist, code, told):
    upload(scientist)
    answer = send(scientist, code)
    assert answer.status_code == 422
    assert told in json.dumps(answer.json()["error"])


def test_a_custom_run_needs_its_program(scientist):
    upload(scientist)
    answer = scientist.post_json("api/v1/runs", run_body(trainer="custom"))
    assert answer.status_code == 422
    assert "code" in answer.json()["error"]["fields"]
