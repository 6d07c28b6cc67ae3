"""Predictions that are fetched later, and feedback on predictions."""

import uuid
from collections.abc import Mapping
from typing import Any

from django.db import DataError, transaction

from common.errors import Conflict, Invalid
from inference.decoding import decode
from inference.execution import KIND
from inference.models import AsyncPrediction, Feedback
from inference.routing import Route
from models_registry.services import hold_version
from tenants import jobs

SELECTING = ("version", "alias", "select", "async")


@transaction.atomic
def submit_prediction(*, route: Route, body: Mapping[str, Any], actor: str) -> AsyncPrediction:
    """Keep the request and queue its prediction by the version that its route names now.

    Raises:
        Invalid, Malformed: the rows are not what the model takes.
        Conflict: the version was deleted meanwhile.
    """
    decode(body, route.version.signature)
    hold_version(route.version.pk, f"Version {route.version.number} of {route.model_name}")
    prediction_id = uuid.uuid4()
    job = jobs.submit(KIND, prediction_id.hex, job_id=prediction_id)
    try:
        return AsyncPrediction.objects.create(
            id=prediction_id,
            job=job,
            version_id=route.version.pk,
            model_name=route.model_name,
            request={name: value for name, value in body.items() if name not in SELECTING},
            created_by=actor,
        )
    except DataError as error:  # PostgreSQL keeps no NUL, which is not worth looking for in every value
        raise Invalid(
            "A text in the rows holds a NUL character, which cannot be kept until a worker reads it."
        ) from error


def give_feedback(*, prediction_id: str, row: int, truth: Any, actor: str) -> Feedback:
    """Keep what turned out to be true of one row of a prediction; the first word stands.

    Raises:
        Conflict: another truth was given for this row before.
    """
    feedback, created = Feedback.objects.get_or_create(
        prediction_id=prediction_id, row=row, defaults={"truth": truth, "created_by": actor}
    )
    if not created and feedback.truth != truth:
        raise Conflict(f"Row {row} of this prediction was given another truth before.", code="already_exists")
    return feedback
