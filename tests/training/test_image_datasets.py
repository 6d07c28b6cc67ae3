"""Images with annotations as a dataset: profiled like a table, learned from by a detector alone."""

import functools

import pytest

from clients.demo import pages
from models_registry import execution as registry_execution
from tenants import jobs
from tenants.models import Job
from tenants.scope import tenant_scope
from tests.runtimes.test_detectors import zipped
from tests.training.conftest import customers, run_body, upload
from training import execution, profiling
from training.models import Run

pytestmark = pytest.mark.usefixtures("model_host")
QUICK = {"epochs": 1, "width": 8, "longest_side": 128, "most_seconds": 10}


@functools.cache
def images() -> bytes:
    return pages.coco_zip(*pages.make_pages(6, seed=5), dpi=24)


def detector_run(**changes):
    asked = {"trainer": "page_detector", "target": "label", "params": QUICK, "model": "pages", **changes}
    return run_body(validation={"kind": "holdout", "fraction": 0.3}, **asked)


def profiled(tenant):
    with tenant_scope(tenant):
        for job in Job.objects.filter(tenant=tenant, kind=profiling.PROFILE_KIND, state="queued"):
            jobs.work_on(str(job.pk), profiling.profile_dataset)


@pytest.fixture
def uploaded(acme, scientist):
    body = upload(scientist, content=images()).json()
    profiled(acme)
    return f"api/v1/datasets/{body['name']}/versions/{body['digest']}"


def test_a_zip_of_images_is_ready_once_a_confined_process_has_read_it(acme, scientist):
    body = upload(scientist, content=images()).json()
    assert (body["format"], body["state"]) == ("coco", "profiling")
    profiled(acme)

    path = f"api/v1/datasets/{body['name']}/versions/{body['digest']}"
    shown = scientist.get(path).json()
    assert (shown["state"], shown["row_count"]) == ("ready", 6)
    label = scientist.get(f"{path}/profile").json()["columns"][-1]
    assert {one["value"] for one in label["top"]} <= set(pages.LABELS)
    assert scientist.get(f"{path}/preview?rows=2").json()["rows"][0][0] == "images/0001.png"


@pytest.mark.parametrize(
    ("content", "told"),
    [(zipped(**{"a.txt": b"b"}), "holds no JSON file"), (images()[:3000], "damaged zip archive")],
    ids=["no annotations", "cut"],
)
def test_a_zip_of_anything_else_is_rejected_with_the_reason(acme, scientist, content, told):
    body = upload(scientist, content=content).json()
    profiled(acme)
    shown = scientist.get(f"api/v1/datasets/{body['name']}/versions/{body['digest']}").json()
    assert shown["state"] == "rejected"
    assert told in shown["rejection_reason"]


def test_a_sheet_of_office_is_told_what_to_do(scientist):
    answer = upload(scientist, content=zipped(**{"[Content_Types].xml": b"<x/>"}))
    assert answer.status_code == 422
    assert "save the sheet as CSV" in answer.json()["error"]["message"]


def test_a_detector_learns_from_images_and_its_version_is_ready(acme, scientist, uploaded):
    answer = scientist.post_json("api/v1/runs", detector_run())
    assert answer.status_code == 202, answer.content
    with tenant_scope(acme):
        run = Run.objects.get(pk=answer.json()["id"])
        jobs.work_on(str(run.pk), execution.train)
        run.refresh_from_db()
        assert "map50" in run.metrics, run.log
        version = run.version
        assert version is not None
        jobs.work_on(str(version.inspection_job_id), registry_execution.inspect)
        version.refresh_from_db()
        assert (version.state, version.task) == ("ready", "detection")
        assert version.signature is not None
        assert version.signature["classes"] == list(pages.LABELS)


def test_images_are_for_detectors_and_tables_for_the_others(acme, scientist, uploaded):
    refused = scientist.post_json("api/v1/runs", run_body(target="label"))
    assert refused.json()["error"]["fields"] == {"trainer": "It takes tables, and this holds images."}
    upload(scientist, name="table", content=customers())
    refused = scientist.post_json("api/v1/runs", detector_run(dataset="table", target="left"))
    assert refused.json()["error"]["fields"] == {"trainer": "It takes images with annotations."}
    refused = scientist.post_json("api/v1/batches", {"dataset": "customers"})
    assert refused.status_code in (400, 404)
