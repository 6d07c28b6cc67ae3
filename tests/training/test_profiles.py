"""What becomes of a dataset once it is uploaded: a profile, or a reason why there is none."""

import io
import json

import pandas as pd
import pytest

from tenants import jobs
from tenants.models import Job
from tenants.scope import tenant_scope
from tenants.site.parts import Table
from tests.training.conftest import customers, run_body, upload
from training import profiling
from training.admin.datasets import _columns_part
from training.models import DatasetVersion

pytestmark = pytest.mark.usefixtures("model_host")
FRAME = pd.read_csv(io.BytesIO(customers()))


def parquet() -> bytes:
    out = io.BytesIO()
    FRAME.to_parquet(out, index=False)
    return out.getvalue()


def json_lines() -> bytes:
    return FRAME.to_json(orient="records", lines=True).encode()


def profiled(tenant):
    """Have every version of the tenant profiled."""
    with tenant_scope(tenant):
        for job in Job.objects.filter(tenant=tenant, kind=profiling.PROFILE_KIND, state="queued"):
            jobs.work_on(str(job.pk), profiling.profile_dataset)


def path_of(body):
    return f"api/v1/datasets/{body['name']}/versions/{body['digest']}"


@pytest.mark.parametrize(("content", "name"), [(customers, "csv"), (json_lines, "jsonl"), (parquet, "parquet")])
def test_a_table_of_every_format_is_profiled_and_shown(acme, scientist, content, name):
    body = upload(scientist, content=content()).json()
    assert (body["format"], body["state"]) == (name, "profiling" if name == "parquet" else "ready")
    assert scientist.get(f"{path_of(body)}/profile").json()["error"]["code"] == "profiling"
    profiled(acme)
    shown = scientist.get(path_of(body)).json()
    assert (shown["state"], shown["row_count"], shown["columns"]) == ("ready", 200, ["age", "city", "spent", "left"])
    profile = scientist.get(f"{path_of(body)}/profile").json()
    assert [column["kind"] for column in profile["columns"]] == ["number", "text", "number", "text"]
    assert sum(value["count"] for value in profile["columns"][1]["top"]) == 200
    preview = scientist.get(f"{path_of(body)}/preview?rows=3").json()
    assert preview["columns"] == ["age", "city", "spent", "left"]
    assert [row[1] for row in preview["rows"]] == FRAME.city.head(3).tolist()
    assert not preview["is_whole"]


def test_a_parquet_file_is_used_once_it_was_read(acme, scientist):
    upload(scientist, content=parquet())
    refused = scientist.post_json("api/v1/runs", run_body())
    assert "still being read" in refused.json()["error"]["fields"]["dataset"]
    profiled(acme)
    assert scientist.post_json("api/v1/runs", run_body()).status_code == 202


def test_a_parquet_file_that_is_none_is_rejected_with_the_reason(acme, scientist):
    body = upload(scientist, content=b"PAR1" + b"nonsense" * 20 + b"PAR1").json()
    profiled(acme)
    shown = scientist.get(path_of(body)).json()
    assert shown["state"] == "rejected"
    assert "no Parquet file" in shown["rejection_reason"]
    assert "no Parquet file" in scientist.get(f"{path_of(body)}/profile").json()["error"]["message"]
    assert "no table" in scientist.post_json("api/v1/runs", run_body()).json()["error"]["fields"]["dataset"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"a": 1}\n{"a": }\n', "line 2: column 7 is no JSON"),
        (b'{"a": 1}\n[1]\n', "line 2: a row is a JSON object"),
        (b'{"a": 1}\n{"a": [1]}\n', "line 2: key 'a': a cell is"),
        (b'{"a": 1}\n{"": 1}\n', "line 2: a key has 1 to 250"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "line 2: byte 8 is not UTF-8"),
        (b"PAR1 cut short", "does not end as Parquet files do"),
    ],
    ids=["syntax", "list", "nested", "key", "encoding", "parquet"],
)
def test_a_malformed_file_is_refused_with_line_and_column(scientist, content, told):
    answer = upload(scientist, content=content)
    assert answer.status_code == 422
    assert told in answer.json()["error"]["fields"]["file"]


def test_datasets_over_the_tenants_limit_are_refused_with_what_is_left(acme, scientist):
    acme.max_dataset_bytes = len(customers()) + 10
    acme.save()
    assert upload(scientist).status_code == 201
    answer = upload(scientist, content=customers(seed=1))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "quota_exceeded")
    assert "have 10 are left" in answer.json()["error"]["message"]
    assert upload(scientist).status_code == 200


def test_a_profile_is_made_once_for_each_version(acme, scientist):
    for content in (customers(), customers(), customers(seed=1)):
        upload(scientist, content=content)
    assert Job.objects.filter(kind=profiling.PROFILE_KIND).count() == 2


def test_what_postgresql_cannot_keep_is_no_profile(acme, scientist):
    rows = pd.DataFrame({"a": ["x\0y", "z"]})
    out = io.BytesIO()
    rows.to_parquet(out, index=False)
    body = upload(scientist, content=out.getvalue()).json()
    profiled(acme)
    assert scientist.get(path_of(body)).json()["state"] == "rejected"
    with tenant_scope(acme):
        assert DatasetVersion.objects.get().profile is None
    assert json.dumps(body)


def test_a_profile_is_drawn_on_the_datasets_page(acme, scientist):
    upload(scientist)
    with tenant_scope(acme):
        assert _columns_part(DatasetVersion.objects.get()).notes == ["Its profile is being made."]
    profiled(acme)
    with tenant_scope(acme):
        content = _columns_part(DatasetVersion.objects.get()).content
    assert isinstance(content, Table)
    rows = content.rows
    assert [row[:2] for row in rows] == [("age", "number"), ("city", "text"), ("spent", "number"), ("left", "text")]
    assert str(rows[0][-1]).count("<rect") == 20
    assert "Lima (" in rows[1][-2]
