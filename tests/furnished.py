"""A tenant with one of everything, for tests that walk over the whole API."""

import io
import pickle
import uuid
from dataclasses import dataclass
from typing import Any

from tests.inference.conftest import fitted, inspected
from tests.training.conftest import customers

TENANT_ID = "furnished"


@dataclass(frozen=True)
class Furnished:
    """The tenant, a token of each surface, and what its things are called in paths, by the parameters' names."""

    tenant: Any
    token: str
    operator_token: str
    values: dict[str, Any]

    def path_values(self, path: str) -> dict[str, Any]:
        """The same for this path: a dataset's name is not a model's."""
        return self.values | ({"name": "customers"} if "/datasets" in path else {})


def furnish(tenant: Any) -> dict[str, Any]:
    """Make one of everything in the tenant in scope; what it is called in paths."""
    from tenants.models import ApiToken, Membership

    version = _ready_version()
    return {
        "tenant_id": tenant.tenant_id,
        "name": "churn",
        "number": version.number,
        "alias": "champion",
        "path": "model.pkl",
        "digest": _dataset().digest,
        "run_id": str(_run().pk),
        "external_id": str(_external_run().pk),
        "group_id": str(uuid.UUID(int=0)),
        "prediction_id": str(_prediction(tenant, version).pk),
        "batch_id": str(_batch(tenant, version).pk),
        "document_id": str(_document(tenant, version).pk),
        "place": 0,
        "member_id": Membership.objects.get(tenant=tenant).pk,
        "token_id": str(ApiToken.objects.get(tenant=tenant).pk),
    }


def _ready_version() -> Any:
    from models_registry import services
    from models_registry.blobs import IncomingFile
    from models_registry.metadata import parse_metadata

    files = [IncomingFile("model.pkl", io.BytesIO(pickle.dumps(fitted())))]
    metadata = parse_metadata({"metrics": {"auc": 0.9}, "tags": {"team": "a"}})
    version = services.register_version(model_name="churn", files=files, metadata=metadata, actor="tests", create=True)
    inspected(version)
    services.activate(version=version, actor="tests")
    services.set_alias(version=version, name="champion", actor="tests")
    return version


def _dataset() -> Any:
    from tenants.models import Job, JobState
    from training import services
    from training.profiling import PROFILE_KIND

    table = customers(40)
    version, _ = services.upload_dataset(
        name="customers", file=io.BytesIO(table), size_bytes=len(table), file_name="customers.csv", actor="tests"
    )
    # No worker is here to profile it, and who asks with `wait` would wait for one.
    Job.objects.filter(kind=PROFILE_KIND, object_id=version.pk.hex).update(state=JobState.CANCELLED)
    return version


def _run() -> Any:
    """A run that has ended, with a metric."""
    from django.utils import timezone

    from training import services
    from training.models import RunMetric
    from training.run_requests import RunRequest

    asked = RunRequest("logistic_regression", dataset="customers", target="left", model="churn", experiment="first")
    run = services.submit_run(request=asked, actor="tests")
    services.cancel_run(run=run, actor="tests")
    RunMetric.objects.create(run=run, key="auc", value=0.9, step=1, at=timezone.now())
    return run


def _external_run() -> Any:
    """A run that a client logs, with a file."""
    from training.external_runs import Logged, begin_run, keep_artifact

    logged = Logged(params={"rate": 0.1}, tags={"team": "a"}, inputs=[{"name": "t", "digest": "d"}])
    run = begin_run(name="theirs", experiment="first", model="", started_at=None, logged=logged, actor="tests")
    keep_artifact(run=run, path="model.pkl", file=io.BytesIO(b"model"), size_bytes=5)
    return run


def _prediction(tenant: Any, version: Any) -> Any:
    from inference.models import AsyncPrediction
    from tenants.models import Job, JobState

    job = Job.objects.create(tenant=tenant, kind="inference.predict", object_id="tests", state=JobState.CANCELLED)
    return AsyncPrediction.objects.create(job=job, version=version, model_name="churn", request={})


def _batch(tenant: Any, version: Any) -> Any:
    from inference.models import BatchJob
    from tenants.models import Job, JobState

    job = Job.objects.create(tenant=tenant, kind="inference.batch", object_id="tests", state=JobState.CANCELLED)
    return BatchJob.objects.create(
        id=job.pk,
        job=job,
        version=version,
        model_name="churn",
        version_number=version.number,
        table=version.bundle,
        table_path="model.pkl",
        format="csv",
        file_name="customers.csv",
    )


def _document(tenant: Any, version: Any) -> Any:
    """A document that was read, with one page and one thing on it."""
    import numpy as np

    from documents.coco import RESULT_PATH, write_coco
    from documents.models import Document, DocumentPage
    from documents.page_files import PageRead, store_page
    from models_registry.blobs import IncomingFile, store_bundle
    from runtimes.detection import Detection
    from runtimes.page_work import PageImage
    from runtimes.png_files import png_of
    from tenants.models import Job, JobState

    rgb = np.full((60, 40, 3), 200, np.uint8)
    read = PageRead(PageImage(rgb, png_of(rgb), 30.0, 45.0), [Detection("title", 0.9, (4.0, 4.0, 30.0, 12.0))])
    document = Document.objects.create(
        job=Job.objects.create(tenant=tenant, kind="documents.read", object_id="tests", state=JobState.SUCCEEDED),
        title="Report",
        version=version,
        model_name="churn",
        version_number=version.number,
        source=version.bundle,
        source_path="model.pkl",
        file_name="report.png",
        media_type="image/png",
        dpi=150,
        min_score=0.5,
        page_total=1,
        page_count=1,
    )
    DocumentPage.objects.create(
        document=document,
        number=1,
        state=JobState.SUCCEEDED,
        width_pt=30,
        height_pt=45,
        detection_count=1,
        bundle=store_page(1, read),
    )
    out = io.BytesIO()
    write_coco(document, ["title"], out)
    document.result = store_bundle([IncomingFile(RESULT_PATH, io.BytesIO(out.getvalue()))])
    document.save()
    return document
