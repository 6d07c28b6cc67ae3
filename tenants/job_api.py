"""How jobs of every kind look over HTTP, and waiting for their end."""

import time
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request

from common.errors import Invalid
from tenants.models import Job, JobState

LONGEST_WAIT_S = 60.0
LOOK_EVERY_S = 0.2


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
    """The job once it has ended, or as it is after `wait_s` seconds."""
    deadline = time.monotonic() + wait_s
    while not job.has_ended and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_S)
        job.refresh_from_db()
    return job
