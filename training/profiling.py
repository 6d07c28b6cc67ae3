"""What a worker does with a new version of a dataset: have a confined runner look at all of it."""

import logging
from datetime import timedelta

from django.conf import settings
from django.db import transaction

from common.errors import Unavailable
from models_registry.metadata import storable_fault
from runtimes import errors as faults
from runtimes.client import HostClient
from runtimes.profiles import Profile
from tenants.models import Job
from training.data import local_copy
from training.limits import limits_now
from training.models import DatasetState, DatasetVersion

PROFILE_KIND = "training.profile"
PROFILE_ATTEMPTS = 5
ONE_AT_A_TIME = timedelta(seconds=1)  # a tenant's profiles: what hangs must not hold every worker
MAX_NAME_CHARS = 250
log = logging.getLogger(__name__)


def profile_dataset(job: Job) -> None:
    """Have the version profiled and ready, or rejected. A rejected file is a result: its job succeeds.

    Raises:
        Unavailable: the model host or the storage is away; the job may be tried again.
    """
    if Job.objects.ahead_of(job).exists():
        job.postpone(ONE_AT_A_TIME)
        return
    version = DatasetVersion.objects.select_related("bundle").filter(pk=job.object_id).first()
    if version is None:
        job.succeed()
        return
    try:
        with local_copy(version) as dataset_fd:
            found = HostClient(settings.MODELS_SOCKET).profile(
                dataset_fd=dataset_fd, format_name=version.format, limits=limits_now()
            )
        _keep(job, version, found)
    except (faults.ModelError, faults.DeadlineExceeded) as fault:
        _reject(job, version, fault.message)
    except faults.RuntimeFault as fault:
        if job.attempts >= job.max_attempts and isinstance(fault, faults.RunnerDied | faults.ProtocolFault):
            _reject(job, version, fault.message)
            return
        raise Unavailable(fault.message, code=fault.code) from fault


def _keep(job: Job, version: DatasetVersion, found: Profile) -> None:
    kept = found.model_dump(mode="json")
    long = next((name for name in found.names if len(name) > MAX_NAME_CHARS), None)
    if fault := storable_fault(kept) or (long and f"has a name of more than {MAX_NAME_CHARS} characters"):
        _reject(job, version, f"What the table holds {fault}.")
        return
    with transaction.atomic():
        job.succeed()
        known = DatasetVersion.objects.filter(pk=version.pk)
        known.update(profile=kept)
        waiting = known.filter(state=DatasetState.PROFILING)
        waiting.update(state=DatasetState.READY, columns=found.names, row_count=found.row_count)


def _reject(job: Job, version: DatasetVersion, reason: str) -> None:
    """A version that is ready already stays so: its file is a table, whatever hindered its profile."""
    with transaction.atomic():
        job.succeed()
        known = DatasetVersion.objects.filter(pk=version.pk)
        known.update(rejection_reason=reason[:1000])
        known.filter(state=DatasetState.PROFILING).update(state=DatasetState.REJECTED)
