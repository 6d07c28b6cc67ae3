"""The queues of the queue lane: each model's messages go to one of a few."""

import zlib

from django.conf import settings

QUEUED_TASK = "inference.predict_queued"


def names() -> list[str]:
    """All queues of the lane."""
    return [f"inference.{place}" for place in range(settings.INFERENCE_QUEUES)]


def queue_of(tenant: str, model_name: str) -> str:
    """The queue of a tenant's model: always the same one, so that an operator can give it machines of its own."""
    place = zlib.crc32(f"{tenant}/{model_name}".encode()) % settings.INFERENCE_QUEUES
    return f"inference.{place}"
