"""What a worker does with a prediction that is fetched later."""

import time

import orjson
from django.conf import settings
from django.db import transaction

from common.errors import Conflict
from inference import predictions
from inference.models import AsyncPrediction
from tenants.models import Job

KIND = "inference.predict"


def predict(job: Job) -> None:
    """Predict what the job's row asks for and keep the answer.

    Raises:
        Conflict: the version was deleted meanwhile.
    """
    asked = AsyncPrediction.objects.select_related("version__bundle").get(pk=job.pk)
    if asked.version is None:
        raise Conflict("The version was deleted while the request waited.", code="version_deleted")
    deadline = time.monotonic() + settings.PREDICTION_DEADLINE_S
    answer = predictions.predict(asked.version, asked.model_name, asked.request, deadline)
    asked.answer = orjson.loads(orjson.dumps(answer | {"id": asked.pk.hex}))  # JSON knows no NaN: null
    with transaction.atomic():
        asked.save(update_fields=["answer"])
        job.succeed()
