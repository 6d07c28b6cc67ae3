"""How jobs of every kind look over HTTP, and waiting for their end."""

import time
from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request

from common.errors import Invalid
from common.seats import Seats
from tenants.models import Job, JobState

LONGEST_WAIT_S = 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0
WAITS = Seats()  # who waits holds a thread of this process and its database connection


class ProgressSerializer(serializers.Serializer[Job]):
    """percent: 0 to 100."""

    percent = serializers.FloatField(source="progress_percent")
    stage = serializers.CharField(source="progress_stage")


class JobErrorSerializer(serializers.Serializer[Job]):
    """Why a job failed."""

    code = serializers.CharField(source="error_code")
    message = serializers.CharField(source="error_message")


class JobSerializer(serializers.Serializer[Job]):
    """What jobs of every kind share."""

    id = serializers.UUIDField()
    kind = serializers.CharField()
    state = serializers.ChoiceField(choices=JobState.choices)
    progress = ProgressSerializer(source="*")
    error = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)

    @extend_schema_field(JobErrorSerializer(allow_null=True))
    def get_error(self, job: Job) -> dict[str, Any] | None:
        return dict(JobErrorSerializer(job).data) if job.error_code else None


def wait_asked(request: Request) -> float:
    """The seconds in `?wait=`; 0 if absent.

    Raises:
        Invalid: not a number from 0 to 60.
    """
    raw = request.query_params.get("wait", "0")
    try:
        wait_s = float(raw)
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s <= LONGEST_WAIT_S:
        raise Invalid(f"wait is a number of seconds from 0 to {LONGEST_WAIT_S:.0f}.", fields={"wait": raw[:40]})
    return wait_s


def await_end(job: Job, wait_s: float) -> Job:
    """The job once it has ended, or as it is after `wait_s` seconds; as it is now where enough others wait already.

    A quarter of the process's threads wait at most, and half of those for one tenant, so that who only waits leaves
    room for who works.
    """
    if job.has_ended or wait_s <= 0:
        return job
    most = max(1, settings.WEB_THREADS // 4)
    with WAITS.seat(job.tenant_id.hex, most_each=min(2, (most + 1) // 2), most=most) as is_seated:
        if is_seated:
            _watch(job, time.monotonic() + wait_s)
    return job


def _watch(job: Job, deadline: float) -> None:
    """Look again until the job has ended, ever less often: most jobs end soon or take long."""
    pause_s = FIRST_PAUSE_S
    while not job.has_ended and (left_s := deadline - time.monotonic()) > 0:
        time.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)
        job.refresh_from_db()
