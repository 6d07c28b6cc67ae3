"""From an upload to a verdict, by a real model host, and what becomes of versions that get none."""

import io
import pickle
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.conf import settings
from django.utils import timezone

from common.errors import Unavailable
from models_registry import execution
from models_registry.blobs import IncomingFile, name_of
from models_registry.loading import load_request, pool_key
from models_registry.metadata import VersionMetadata
from models_registry.models import ModelVersion, RegisteredModel
from models_registry.services import delete_version, register_version
from runtimes.client import HostClient
from tenants.jobs import work_on
from tenants.models import Job, JobLost, JobState
from tenants.scope import current_tenant

pytestmark = pytest.mark.usefixtures("here")
Upload = Callable[..., ModelVersion]


@pytest.fixture
def upload() -> Upload:
    """`upload(content)`: a version that waits for its inspection."""

    def make(content: bytes, **options: Any) -> ModelVersion:
        files = [IncomingFile("model.pkl", io.BytesIO(content))]
        return register_version(model_name="churn", files=files, actor="tests", create=True, **options)

    return make


def classifier() -> bytes:
    """A pickled classifier of four features."""
    from sklearn.linear_model import LogisticRegression

    rows = np.random.default_rng(7).normal(size=(60, 4))
    return pickle.dumps(LogisticRegression().fit(rows, np.where(rows[:, 0] > 0, "yes", "no")))


def inspected(version: ModelVersion) -> Job:
    """The job of the version's inspection, after a worker had it once."""
    job = Job.objects.get(object_id=str(version.pk), state=JobState.QUEUED)
    Job.objects.filter(pk=job.pk).update(due_at=timezone.now() - timedelta(seconds=1))
    work_on(str(job.pk), execution.inspect)
    job.refresh_from_db()
    version.refresh_from_db()
    return job


def test_a_good_artifact_is_ready_with_what_was_found(model_host: str, upload: Upload) -> None:
    version = upload(classifier())

    job = inspected(version)

    assert (job.state, job.progress_percent) == (JobState.SUCCEEDED, 100)
    assert (version.state, version.format, version.task) == ("ready", "sklearn", "classification")
    assert version.signature is not None
    assert version.signature["classes"] == ["no", "yes"]
    assert version.inspection["memory_bytes"] > 0
    assert "scikit-learn" in version.inspection["made_with"] | version.inspection["libraries"]
    assert RegisteredModel.objects.get().task == "classification"


def test_a_ready_version_predicts_by_its_load_request(model_host: str, upload: Upload) -> None:
    version = upload(classifier())
    inspected(version)

    runner = HostClient(model_host).runner(pool_key(current_tenant(), version), lambda: load_request(version))
    prediction = runner.predict(np.array([[3.0, 0, 0, 0], [-3.0, 0, 0, 0]]), deadline_s=30)

    assert next(iter(prediction.outputs.values())).tolist() == ["yes", "no"]


def test_a_deleted_version_leaves_the_memory(
    model_host: str, upload: Upload, django_capture_on_commit_callbacks: Any
) -> None:
    version = upload(classifier())
    inspected(version)
    host, key = HostClient(model_host), pool_key(current_tenant(), version)
    host.runner(key, lambda: load_request(version)).predict(np.zeros((1, 4)), deadline_s=30)

    with django_capture_on_commit_callbacks(execute=True):
        delete_version(version=version, actor="tests")

    assert not host.evict(key)


def test_a_version_is_deleted_though_the_host_is_away(
    settings: Any, tmp_path: Path, upload: Upload, django_capture_on_commit_callbacks: Any
) -> None:
    settings.MODELS_SOCKET = str(tmp_path / "nobody.sock")
    version = upload(b"x")
    Job.objects.update(state=JobState.CANCELLED)

    with django_capture_on_commit_callbacks(execute=True):
        delete_version(version=version, actor="tests")

    assert not ModelVersion.objects.exists()


def test_what_is_no_model_is_rejected_and_its_job_succeeds(model_host: str, upload: Upload) -> None:
    version = upload(b"this is no model")

    job = inspected(version)

    assert job.state == JobState.SUCCEEDED
    assert version.state == "rejected"
    assert version.rejection_code
    assert version.rejection_reason.endswith(".")


class Hostile:
    """Unpickled, it tries to run a program."""

    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch /tmp/tenantry-was-here",)


def test_a_hostile_artifact_is_rejected_and_does_nothing(model_host: str, upload: Upload) -> None:
    version = upload(pickle.dumps(Hostile()))

    inspected(version)

    assert version.state == "rejected"
    assert not Path("/tmp/tenantry-was-here").exists()


def test_what_was_declared_reaches_the_inspection(model_host: str, upload: Upload) -> None:
    version = upload(classifier(), metadata=VersionMetadata(declared={"labels": ["one"]}))

    inspected(version)

    assert version.state == "rejected"
    assert "label" in version.rejection_reason


def test_a_job_delivered_twice_inspects_once(model_host: str, upload: Upload) -> None:
    version = upload(classifier())
    job = inspected(version)
    found = version.inspection

    work_on(str(job.pk), execution.inspect)

    version.refresh_from_db()
    assert version.inspection == found


def test_a_deleted_version_needs_no_inspection(upload: Upload) -> None:
    version = upload(b"x")
    job = version.inspection_job
    assert job is not None
    ModelVersion.objects.all().delete()

    work_on(str(job.pk), execution.inspect)

    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED


def test_a_model_host_that_is_away_is_asked_again_later(settings: Any, tmp_path: Path, upload: Upload) -> None:
    settings.MODELS_SOCKET = str(tmp_path / "nobody.sock")
    version = upload(classifier())

    job = inspected(version)

    assert (job.state, job.attempts) == (JobState.QUEUED, 1)
    assert version.state == "inspecting"


def test_a_host_that_is_away_for_all_attempts_rejects_nothing(
    model_host: str, settings: Any, tmp_path: Path, upload: Upload
) -> None:
    settings.MODELS_SOCKET = str(tmp_path / "nobody.sock")
    version = upload(classifier())
    Job.objects.update(max_attempts=2)

    inspected(version)
    job = inspected(version)

    assert (job.state, job.error_code) == (JobState.FAILED, "host_unavailable")
    assert version.state == "inspecting"

    settings.MODELS_SOCKET = model_host
    execution.sweep_storage()

    assert inspected(version).pk != job.pk
    assert version.is_ready


def test_a_worker_that_lost_its_last_attempt_rejects_nothing(upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    version = upload(classifier())
    Job.objects.update(max_attempts=1)

    def lose(job: Job, percent: float, stage: str) -> None:
        raise JobLost

    monkeypatch.setattr(Job, "report", lose)

    inspected(version)

    assert version.state == "inspecting"


def test_a_damaged_file_is_not_inspected(model_host: str, upload: Upload) -> None:
    version = upload(classifier())
    blob = version.bundle.files.select_related("blob").get().blob
    at = Path(settings.MODELS_ROOT, name_of(blob))
    at.write_bytes(at.read_bytes()[:-1] + b"!")

    job = inspected(version)

    assert (job.state, version.state) == (JobState.QUEUED, "inspecting")
    with pytest.raises(Unavailable) as caught:
        load_request(version)
    assert caught.value.code == "corrupt_file"


class TestStuck:
    """Versions whose inspection ended without a verdict."""

    def end(self, version: ModelVersion, code: str) -> None:
        Job.objects.filter(object_id=str(version.pk)).update(
            state=JobState.FAILED, error_code=code, error_message="It broke."
        )
        version.begin_inspection()

    def test_one_whose_host_was_away_is_inspected_again(self, model_host: str, upload: Upload) -> None:
        version = upload(classifier())
        self.end(version, "host_unavailable")

        execution.sweep_storage()

        assert inspected(version).state == JobState.SUCCEEDED
        assert version.is_ready

    def test_one_whose_worker_was_lost_is_rejected(self, upload: Upload) -> None:
        version = upload(classifier())
        self.end(version, "worker_lost")

        execution.sweep_storage()

        version.refresh_from_db()
        assert (version.state, version.rejection_code) == ("rejected", "worker_lost")

    def test_one_that_still_waits_is_left_alone(self, upload: Upload) -> None:
        version = upload(classifier())

        execution.sweep_storage()

        version.refresh_from_db()
        assert version.state == "pending"


def test_a_failure_of_ours_ends_in_a_rejection_and_not_in_waiting_for_ever(
    upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = upload(classifier())
    Job.objects.update(max_attempts=1)
    monkeypatch.setattr(execution.packs, "open_pack", lambda bundle: 1 / 0)  # type: ignore[attr-defined]

    job = inspected(version)

    assert (job.state, job.error_code) == (JobState.FAILED, "internal_error")
    assert (version.state, version.rejection_code) == ("rejected", "inspection_failed")


def test_a_tenants_inspections_wait_for_one_another(model_host: str, upload: Upload) -> None:
    first, second = upload(classifier()), upload(classifier()[:-1] + b".")
    held = first.inspection_job
    assert held is not None
    held.claim("elsewhere")
    job = inspected(second)
    assert (second.state, job.state, job.attempts) == ("pending", JobState.QUEUED, 0)
    held.succeed()
    assert inspected(second).state == JobState.SUCCEEDED
