"""Batch jobs: a table in, the same table with predictions out, whatever happens to the worker on the way."""

import csv
import io
import json
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from common.errors import Invalid, Unavailable
from inference.batch import asking, parts, work
from inference.batch.asking import Asker
from inference.execution import sweep
from inference.models import BatchJob
from models_registry.models import Blob, ModelVersion
from runtimes.protocol import Prediction
from runtimes.tabulation import Chunk
from tenants.jobs import work_on
from tenants.models import Job, JobState
from tenants.scope import tenant_scope
from tests.inference.conftest import inspected
from tests.models_registry.test_uploads import upload
from tests.runtimes.payloads import predicting

HEADER = ["id", "a", "b", "c", "d"]


def table(rows):
    """A CSV file with these rows of four numbers, each with an id."""
    out = io.StringIO()
    csv.writer(out).writerows([HEADER, *([number, *row] for number, row in enumerate(rows))])
    return out.getvalue().encode()


@pytest.fixture
def named(acme, ready_version):
    """Version 1 of acme's model `churn`, active, which takes the columns a to d by name."""
    import pandas as pd
    from sklearn.linear_model import LogisticRegression

    from models_registry import services

    rows = np.random.default_rng(7).normal(size=(200, 4))
    fitted = LogisticRegression().fit(pd.DataFrame(rows, columns=list("abcd")), np.where(rows[:, 0] > 0, "yes", "no"))
    version = ready_version(acme, "churn", fitted)
    with tenant_scope(acme):
        services.activate(version=version, actor="tests")
    return version


@pytest.fixture
def client(acme, client_for, named):
    return client_for(acme)


def submitted(client, content, name="people.csv", **fields):
    """A batch job over an uploaded file, as the API answers it."""
    upload = {"model": "churn", "file": SimpleUploadedFile(name, content)} | fields
    answer = client.post("api/v1/batch-jobs", upload)
    assert answer.status_code == 202, answer.content
    assert answer["Location"].endswith(f"/batch-jobs/{answer.json()['id']}")
    return answer.json()


def worked(tenant, batch, times=1):
    """The batch job after a worker has taken it up so often."""
    with tenant_scope(tenant):
        for _ in range(times):
            Job.objects.filter(pk=batch["id"], state=JobState.QUEUED).update(due_at=timezone.now())
            work_on(batch["id"], work.predict_table)


def result_of(client, batch):
    answer = client.get(f"api/v1/batch-jobs/{batch['id']}/result")
    assert answer.status_code == 200, answer.content
    assert "people-predicted" in answer["Content-Disposition"]
    return b"".join(answer.streaming_content)


def rows_of(content):
    return list(csv.DictReader(io.StringIO(content.decode())))


def test_a_csv_file_comes_back_with_predictions_probabilities_and_errors(acme, client):
    content = table([[2, 0, 0, 0], ["many", 0, 0, 0], [-2, 0, 0, 0], ["inf", 0, 0, 0]])
    batch = submitted(client, content, probabilities="true")
    assert client.get(f"api/v1/batch-jobs/{batch['id']}/result").json()["error"]["code"] == "no_result"

    worked(acme, batch)

    shown = client.get(f"api/v1/batch-jobs/{batch['id']}").json()
    assert (shown["state"], shown["rows"], shown["failed_rows"]) == ("succeeded", 4, 2), shown
    rows = rows_of(result_of(client, batch))
    assert [row["prediction"] for row in rows] == ["yes", "", "no", ""]
    assert float(rows[0]["probability_yes"]) > 0.5 > float(rows[2]["probability_yes"])
    assert rows[1]["error"] == "column 'a': 'many' is not a number"
    assert "infinity" in rows[3]["error"]
    assert [row["id"] for row in rows] == ["0", "1", "2", "3"]


def test_rows_that_end_the_models_process_have_an_error_and_the_others_answers(acme, client, monkeypatch):
    monkeypatch.setattr(asking, "PAUSE_S", 0.01)
    code = "if rows[:, 0].max() > 9: os._exit(1)\nreturn {'sum' if rows[:, 1].max() < 9 else 'other': rows.sum(axis=1)}"
    upload(client, {"input_example": [[1.0, 2.0]]}, **{"model.pkl": predicting(code)})
    with tenant_scope(acme):
        inspected(ModelVersion.objects.get(number=2))
    content = b"x,y\n1,2\n3,4\n99,1\n5,6\n1,99\n"
    batch = submitted(client, content, version=2)

    worked(acme, batch)

    shown = client.get(f"api/v1/batch-jobs/{batch['id']}").json()
    assert (shown["state"], shown["rows"], shown["failed_rows"]) == ("succeeded", 5, 2), shown
    rows = rows_of(result_of(client, batch))
    assert [row["sum"] for row in rows] == ["3.0", "7.0", "", "11.0", ""]
    assert rows[2]["error"] == "The model's process ended while it predicted this row."
    assert rows[4]["error"] == "The model gave no 'sum' for this row."


def test_json_lines_come_back_as_json_lines(acme, client):
    lines = b'{"a": 2, "b": 0, "c": 0, "d": 0, "who": "x"}\n{"a": -2, "b": 0, "c": 0}\n'
    batch = submitted(client, lines, "people.ndjson")
    worked(acme, batch)
    rows = [json.loads(line) for line in result_of(client, batch).splitlines()]
    assert [(row["prediction"], row["error"]) for row in rows] == [
        ("yes", None),
        (None, "column 'd': the value is missing"),
    ]
    assert rows[0]["who"] == "x"


def test_a_dataset_is_predicted_by_its_name(acme, client):
    uploaded = client.post(
        "api/v1/datasets", {"name": "people", "file": SimpleUploadedFile("people.csv", table([[2, 0, 0, 0]]))}
    )
    assert uploaded.status_code == 201, uploaded.content
    answer = client.post_json("api/v1/batch-jobs", {"model": "churn", "dataset": "people", "version": 1})
    assert answer.status_code == 202, answer.content
    worked(acme, answer.json())
    assert rows_of(result_of(client, answer.json()))[0]["prediction"] == "yes"


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"name": "people.xls"}, 422, "invalid_parameter"),
        ({"model": "nobody"}, 404, "not_found"),
        ({"version": "9"}, 404, "not_found"),
    ],
)
def test_what_cannot_be_asked_is_refused_at_once(client, fields, status, code):
    file = SimpleUploadedFile(fields.pop("name", "people.csv"), table([[1, 0, 0, 0]]))
    answer = client.post("api/v1/batch-jobs", {"model": "churn", "file": file} | fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    missing = client.post_json("api/v1/batch-jobs", {"model": "churn", "dataset": "nothing"})
    assert missing.status_code == 404


def test_a_file_that_the_model_does_not_take_fails_the_job_in_a_sentence(acme, client):
    batch = submitted(client, b"a,b\n1,2\n")
    worked(acme, batch)
    shown = client.get(f"api/v1/batch-jobs/{batch['id']}").json()
    assert shown["state"] == "failed"
    assert shown["error"] == {
        "code": "invalid_dataset",
        "message": "The table cannot be predicted: The file lacks columns that the model takes: 'c', 'd'.",
    }


class Killed(BaseException):
    """The end of a worker, as far as its thread can tell."""


def test_a_killed_workers_job_goes_on_after_its_last_stored_chunk(acme, client, monkeypatch):
    monkeypatch.setattr(parts, "PART_S", 0.0)
    answered = Asker.answer
    asked: list[Any] = []

    def answer(self: Asker, chunk: Chunk) -> Any:
        if len(asked) == 2:
            asked.append("killed")
            raise Killed
        asked.append(chunk.number)
        return answered(self, chunk)

    monkeypatch.setattr(Asker, "answer", answer)
    batch = submitted(client, table([[number - 2500.5, 0, 0, 0] for number in range(5000)]))
    with pytest.raises(Killed):
        worked(acme, batch)
    assert Job.objects.get(pk=batch["id"]).state == JobState.RUNNING
    Job.objects.filter(pk=batch["id"]).update(lease_until=timezone.now() - timedelta(seconds=1))

    worked(acme, batch)

    assert asked == [0, 1, "killed", 2]
    rows = rows_of(result_of(client, batch))
    assert [row["id"] for row in rows] == [str(number) for number in range(5000)]
    assert [row["prediction"] for row in rows] == ["no"] * 2501 + ["yes"] * 2499
    assert client.get(f"api/v1/batch-jobs/{batch['id']}").json()["rows"] == 5000


def test_a_part_that_the_collector_took_is_predicted_again(acme, client, monkeypatch):
    monkeypatch.setattr(parts, "PART_S", 0.0)
    answered = Asker.answer
    monkeypatch.setattr(Asker, "answer", lambda self, chunk: answered(self, chunk) if chunk.number < 1 else fail())
    batch = submitted(client, table([[1, 0, 0, 0]] * 3000))
    worked(acme, batch)
    assert client.get(f"api/v1/batch-jobs/{batch['id']}").json()["state"] == "queued"
    with tenant_scope(acme):
        Blob.objects.filter(pk__in=[part["blob"] for part in BatchJob.objects.get().parts]).delete()
    monkeypatch.setattr(Asker, "answer", answered)
    worked(acme, batch)
    assert len(rows_of(result_of(client, batch))) == 3000


def fail():
    raise Unavailable("away")


def test_a_cancelled_job_ends_without_a_result(acme, client, monkeypatch):
    monkeypatch.setattr(work, "LOOK_EVERY_S", 0.0)
    batch = submitted(client, table([[1, 0, 0, 0]] * 3000))
    answered = Asker.answer

    def answer(self: Asker, chunk: Chunk) -> Any:
        Job.objects.get(pk=batch["id"]).cancel()
        return answered(self, chunk)

    monkeypatch.setattr(Asker, "answer", answer)
    worked(acme, batch)
    assert client.get(f"api/v1/batch-jobs/{batch['id']}").json()["state"] == "cancelled"
    assert client.get(f"api/v1/batch-jobs/{batch['id']}/result").status_code == 409


def test_a_queued_job_is_cancelled_once_and_for_all(acme, client):
    batch = submitted(client, table([[1, 0, 0, 0]]))
    for _ in range(2):
        assert client.post(f"api/v1/batch-jobs/{batch['id']}/cancel").json()["state"] == "cancelled"
    worked(acme, batch)
    assert client.get(f"api/v1/batch-jobs/{batch['id']}").json()["state"] == "cancelled"


def test_one_batch_of_a_tenant_goes_on_at_a_time(acme, client):
    first, second = submitted(client, table([[1, 0, 0, 0]])), submitted(client, table([[2, 0, 0, 0]]))
    Job.objects.get(pk=first["id"]).claim("another worker")
    worked(acme, second)
    waiting = Job.objects.get(pk=second["id"])
    assert (waiting.state, waiting.attempts) == (JobState.QUEUED, 0)


def test_a_long_job_gives_others_their_turn_and_goes_on_where_it_was(acme, globex, client, monkeypatch):
    monkeypatch.setattr(work, "SLICE_S", 0.0)
    monkeypatch.setattr(work, "LOOK_EVERY_S", 0.0)
    batch = submitted(client, table([[1, 0, 0, 0]] * 5000))
    Job.objects.create(tenant=globex, kind=work.KIND, object_id="tests")

    worked(acme, batch)

    job = Job.objects.get(pk=batch["id"])
    assert (job.state, job.attempts) == (JobState.QUEUED, 0)
    assert client.get(f"api/v1/batch-jobs/{batch['id']}").json()["rows"] == 2000
    worked(acme, batch, times=3)
    assert len(rows_of(result_of(client, batch))) == 5000


def test_a_tenant_has_so_many_open_jobs_and_no_more(client, monkeypatch):
    monkeypatch.setattr("inference.batch.services.MOST_OPEN", 1)
    submitted(client, table([[1, 0, 0, 0]]))
    answer = client.post(
        "api/v1/batch-jobs", {"model": "churn", "file": SimpleUploadedFile("x.csv", table([[1, 0, 0, 0]]))}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_open_jobs")
    assert answer["Retry-After"]


def test_a_version_with_an_open_batch_job_is_kept(acme, client, named):
    submitted(client, table([[1, 0, 0, 0]]))
    client.post_json("api/v1/models/churn/deactivate")
    answer = client.delete("api/v1/models/churn/versions/1")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "version_in_use")


def test_old_batch_jobs_are_swept_with_their_jobs(acme, client):
    batch = submitted(client, table([[1, 0, 0, 0]]))
    client.post(f"api/v1/batch-jobs/{batch['id']}/cancel")
    with tenant_scope(acme):
        BatchJob.objects.update(created_at=timezone.now() - timedelta(days=31))
    sweep()
    with tenant_scope(acme):
        assert not BatchJob.objects.exists()
    assert not Job.objects.filter(pk=batch["id"]).exists()


def test_lists_are_filtered_and_cost_a_bounded_number_of_queries(client, django_assert_max_num_queries):
    for _ in range(3):
        submitted(client, table([[1, 0, 0, 0]]))
    with django_assert_max_num_queries(8):
        listed = client.get("api/v1/batch-jobs?state=queued&model=churn").json()
    assert len(listed["results"]) == 3
    assert client.get("api/v1/batch-jobs?model=other").json()["results"] == []


def test_an_asynchronous_prediction_can_be_cancelled(client):
    asked = client.post_json("api/v1/models/churn/predict", {"instances": [[1, 0, 0, 0]], "async": True}).json()
    assert client.post(f"api/v1/predictions/{asked['id']}/cancel").json()["state"] == "cancelled"
    Job.objects.filter(pk=asked["id"]).update(state=JobState.SUCCEEDED)
    assert client.post(f"api/v1/predictions/{asked['id']}/cancel").status_code == 409


@pytest.mark.parametrize("other", [{"second": np.zeros(2)}, {"first": np.zeros((2, 3))}])
def test_answers_that_do_not_fit_each_other_end_the_job_in_a_sentence(other):
    with pytest.raises(Invalid, match="other names or shapes"):
        asking._joined([Prediction({"first": np.zeros(2)}), Prediction(other)])
