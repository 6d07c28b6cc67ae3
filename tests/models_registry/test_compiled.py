"""The compiled form of a version: made at its inspection, served, kept and removed with it."""

import io
import pickle
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.utils import timezone
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from models_registry import blobs, execution
from models_registry.blobs import IncomingFile, used_bytes
from models_registry.loading import load_request, pool_key
from models_registry.models import Blob, Bundle, ModelVersion
from models_registry.services import delete_version, register_version
from runtimes.client import HostClient, Prediction
from tenants.jobs import work_on
from tenants.models import Job, JobState, Tenant
from tenants.scope import current_tenant

pytestmark = [pytest.mark.usefixtures("here", "model_host"), pytest.mark.django_db]
RANDOM = np.random.default_rng(7)
ROWS = RANDOM.normal(size=(60, 4))
TARGET = np.where(ROWS[:, 0] > 0, "yes", "no")
MODEL = LogisticRegression().fit(ROWS, TARGET)


@pytest.fixture(autouse=True)
def _compiling(settings: Any) -> None:
    settings.COMPILE_SECONDS = 60


@pytest.fixture
def inspected() -> Callable[..., ModelVersion]:
    """`inspected(model)`: a version of it after its inspection."""

    def make(model: Any) -> ModelVersion:
        files = [IncomingFile("model.pkl", io.BytesIO(pickle.dumps(model)))]
        version = register_version(model_name="churn", files=files, actor="tests", create=True)
        job = Job.objects.get(object_id=str(version.pk), state=JobState.QUEUED)
        Job.objects.filter(pk=job.pk).update(due_at=timezone.now() - timedelta(seconds=1))
        work_on(str(job.pk), execution.inspect)
        version.refresh_from_db()
        assert version.is_ready, version.rejection_reason
        return version

    return make


def predicted(host: str, version: ModelVersion) -> Prediction:
    runner = HostClient(host).runner(pool_key(current_tenant(), version), lambda: load_request(version))
    return runner.predict(ROWS, probabilities=True, deadline_s=30)


def test_an_inspected_version_has_a_compiled_form_and_says_how_it_compares(inspected: Any) -> None:
    version = inspected(MODEL)

    verdict = version.compilation
    assert verdict["state"] == "compiled"
    assert verdict["sentence"].startswith("Compiled, max difference ")
    assert verdict["max_difference"] < 1e-9
    assert verdict["rows"] > 1000
    assert verdict["size_bytes"] == version.compiled_bundle.size_bytes
    assert [file.path for file in version.compiled_bundle.files.all()] == ["model.onnx"]
    assert [file.path for file in version.bundle.files.all()] == ["model.pkl"]


def test_the_compiled_form_serves_and_answers_as_the_original(model_host: str, inspected: Any) -> None:
    version = inspected(MODEL)

    load = load_request(version)
    prediction = predicted(model_host, version)

    assert (load.format, load.options["is_compiled"]) == ("onnx", True)
    assert prediction.outputs["prediction"].tolist() == MODEL.predict(ROWS).tolist()
    np.testing.assert_allclose(prediction.probabilities, MODEL.predict_proba(ROWS))  # type: ignore[arg-type]


def test_the_original_serves_where_the_compiled_form_cannot_be_loaded(model_host: str, inspected: Any) -> None:
    version = inspected(MODEL)
    version.compiled_bundle = blobs.store_bundle([IncomingFile("model.onnx", io.BytesIO(b"no graph at all"))])

    prediction = predicted(model_host, version)

    assert prediction.outputs["prediction"].tolist() == MODEL.predict(ROWS).tolist()


def test_the_original_serves_where_the_compiled_file_is_damaged(settings: Any, model_host: str, inspected: Any) -> None:
    version = inspected(MODEL)
    blob = version.compiled_bundle.files.select_related("blob").get().blob
    Path(settings.MODELS_ROOT, blobs.name_of(blob)).write_bytes(b"other bytes")

    assert load_request(version).format == "sklearn"


def test_what_does_not_compile_is_ready_with_the_reason_and_serves(model_host: str, inspected: Any) -> None:
    dummy = DummyClassifier(strategy="prior").fit(ROWS, TARGET)

    version = inspected(dummy)

    assert version.compiled_bundle is None
    assert version.compilation == {
        "state": "not_compiled",
        "sentence": "Not compiled. There is no conversion of DummyClassifier to ONNX.",
    }
    assert load_request(version).format == "sklearn"
    assert predicted(model_host, version).outputs["prediction"].tolist() == dummy.predict(ROWS).tolist()


def test_compiling_can_be_turned_off(settings: Any, inspected: Any) -> None:
    settings.COMPILE_SECONDS = 0

    version = inspected(MODEL)

    assert (version.compilation["state"], version.compiled_bundle) == ("not_compiled", None)


def test_the_compiled_form_counts_and_goes_with_its_version(
    inspected: Any, django_capture_on_commit_callbacks: Any
) -> None:
    version = inspected(MODEL)
    sizes = version.bundle.size_bytes + version.compiled_bundle.size_bytes
    assert used_bytes() == sizes

    with django_capture_on_commit_callbacks(execute=True):
        delete_version(version=version, actor="tests")
    Blob.objects.update(touched_at=timezone.now() - timedelta(days=1))
    blobs.sweep()

    assert (used_bytes(), Bundle.objects.count(), Blob.objects.count()) == (0, 0, 0)


def test_a_tenant_without_room_keeps_the_original_alone(inspected: Any) -> None:
    tenant = current_tenant()
    size = len(pickle.dumps(MODEL))
    Tenant.objects.filter(pk=tenant.pk).update(max_storage_bytes=size + 10)
    tenant.max_storage_bytes = size + 10

    version = inspected(MODEL)

    assert version.compiled_bundle is None
    assert version.compilation["sentence"].startswith("Not compiled. There is no room")


def test_a_version_tells_its_compilation_and_downloads_as_it_came(inspected: Any, client_for: Any) -> None:
    version = inspected(MODEL)
    client, address = client_for(current_tenant(), "read"), f"api/v1/models/churn/versions/{version.number}"

    shown = client.get(address).json()
    artifact = client.get(f"{address}/artifact").getvalue()

    assert shown["compilation"] == version.compilation
    assert artifact == pickle.dumps(MODEL)
