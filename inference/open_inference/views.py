"""The protocol's paths: health, metadata, infer, and the repository extension."""

from collections.abc import Iterator, Mapping
from importlib.metadata import version as version_of
from typing import Any

import orjson
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path

from common.errors import Conflict, Invalid, NotFound
from inference import bodies, lanes
from inference.open_inference import answers, inputs, requests
from inference.open_inference.datatypes import datatype_of
from inference.pool import model_pool
from inference.predictions import deadline_of
from inference.protocols import answering, content_of
from inference.routing import Route, route
from models_registry.history import ready_versions, routing_of
from models_registry.loading import pool_key
from models_registry.models import Deployment, ModelVersion, RegisteredModel
from models_registry.warming import warm_up
from runtimes.signature import Field
from tenants.models import Scope
from tenants.scope import current_tenant

SERVER = {
    "name": "tenantry",
    "version": version_of("tenantry"),
    "extensions": ["binary_tensor_data", "model_repository"],
}
MOST_LISTED = 10_000
LOAD_WITHIN_S = 60.0


@answering("GET")
def live(request: HttpRequest) -> HttpResponse:
    """Whether the server lives: it has answered."""
    return _json({"live": True})


@answering("GET")
def ready(request: HttpRequest) -> HttpResponse:
    """Whether it can answer: who asks has been found in the database."""
    return _json({"live": True, "ready": True})


@answering("GET")
def server(request: HttpRequest) -> HttpResponse:
    """What the server is and what it can do."""
    return _json(SERVER)


@answering("GET")
def model(request: HttpRequest, name: str, version: str | None = None) -> HttpResponse:
    """What a model takes and gives."""
    found = _route(request, name, version)
    signature = found.version.signature
    numbers = ModelVersion.objects.ready().filter(model__name=name).order_by("number").values_list("number", flat=True)
    outputs = [_field(field) for field in signature.outputs]
    if answers.has_probabilities(signature):
        shape = [-1, len(signature.classes or ())]
        outputs.append({"name": answers.PROBABILITIES, "datatype": "FP64", "shape": shape})
    return _json(
        {
            "name": name,
            "versions": [str(number) for number in numbers],
            "platform": found.version.format,
            "inputs": [_field(field) for field in signature.inputs],
            "outputs": outputs,
        }
    )


def _field(field: Field) -> dict[str, Any]:
    return {"name": field.name, "datatype": datatype_of(field.dtype), "shape": list(field.shape)}


@answering("GET")
def model_ready(request: HttpRequest, name: str, version: str | None = None) -> HttpResponse:
    """Whether a model, or a version of it, can be asked."""
    _route(request, name, version)
    return _json({"name": name, "ready": True})


@answering("POST", Scope.PREDICT)
def infer(request: HttpRequest, name: str, version: str | None = None) -> HttpResponse:
    """Predict."""
    found = _route(request, name, version)
    asked = requests.read(_content(request), request.META.get("HTTP_INFERENCE_HEADER_CONTENT_LENGTH"))
    signature = found.version.signature
    decoded = inputs.decode(asked, signature)
    said = {} if asked.timeout_s is None else {"deadline_ms": asked.timeout_s * 1000}
    prediction = lanes.predict(
        found,
        decoded,
        probabilities=answers.wants_probabilities(asked, signature),
        deadline=deadline_of(said, settings.PREDICTION_DEADLINE_S),
    )
    return answers.render(
        asked,
        prediction,
        model_name=found.model_name,
        number=found.version.number,
        accepts=request.META.get("HTTP_ACCEPT_ENCODING", ""),
    )


def _content(request: HttpRequest) -> bytes:
    content, encoding = content_of(request), request.META.get("HTTP_CONTENT_ENCODING", "")
    return requests.decompressed(content, encoding, settings.DATA_UPLOAD_MAX_MEMORY_SIZE)


@answering("POST", Scope.READ)
def index(request: HttpRequest) -> HttpResponse:
    """The tenant's models: of each, the versions that requests go to."""
    content = content_of(request)
    only_ready = bodies.read(content).get("ready") if content.strip() else None
    if not isinstance(only_ready, bool | None):
        raise Invalid("ready is true or false.", fields={"ready": str(only_ready)[:40]})
    return _json([entry for entry in _entries() if entry["state"] == "READY" or not only_ready])


def _entries() -> Iterator[dict[str, str]]:
    for one in RegisteredModel.objects.with_standing()[:MOST_LISTED]:
        deployment: Deployment | None = getattr(one, "deployment", None)
        numbers = routing_of(deployment.activation if deployment else None).versions
        if not numbers:
            yield {"name": one.name, "version": "", "state": "UNAVAILABLE", "reason": "no version is active"}
        for number in numbers:
            yield {"name": one.name, "version": str(number), "state": "READY", "reason": ""}


@answering("POST", Scope.WRITE)
def load(request: HttpRequest, name: str) -> HttpResponse:
    """Have the versions that a model's requests go to in memory now, rather than with the first request."""
    found, limits = _routed(name)
    warm_up(found, limits, had=limits, within_s=settings.WARM_UP_SECONDS or LOAD_WITHIN_S)
    return _json({})


@answering("POST", Scope.WRITE)
def unload(request: HttpRequest, name: str) -> HttpResponse:
    """Have them leave this machine's memory. What serves stays so: the next request loads it again."""
    found, _ = _routed(name)
    if settings.MODELS_SOCKET:
        model_pool().delete_many(pool_key(current_tenant(), one) for one in found)
    return _json({})


def _routed(name: str) -> tuple[list[ModelVersion], Mapping[str, float]]:
    """The versions that a model's requests go to, and the limits of their runners.

    Raises:
        NotFound: there is no such model. Conflict: nothing serves.
    """
    found = RegisteredModel.objects.with_standing().filter(name=name).first()
    if found is None:
        raise NotFound(f"There is no model '{name[:100]}'.")
    deployment: Deployment | None = getattr(found, "deployment", None)
    routing = routing_of(deployment.activation if deployment else None)
    if not routing.split:
        raise Conflict(f"No version of {name} is active; activate one first.", code="no_active_version")
    return list(ready_versions(found, routing.versions).values()), routing.limits


@answering("GET")
def nothing(request: HttpRequest, rest: str) -> HttpResponse:
    """The protocol's own answer to what there is not, such as shared memory, traces and statistics."""
    raise NotFound(f"There is no v2/{rest[:100]} here.")


def _route(request: HttpRequest, name: str, version: str | None) -> Route:
    if version is None:
        return route(name, {}, request.META.get("HTTP_X_ROUTING_KEY"))
    if not (version.isascii() and version.isdigit() and len(version) < 11):
        raise NotFound(f"{name[:100]} has no version '{version[:100]}'.")
    return route(name, {"version": int(version)})


def _json(body: Any) -> HttpResponse:
    return HttpResponse(orjson.dumps(body), content_type="application/json")


ONE, VERSION = "v2/models/<str:name>", "v2/models/<str:name>/versions/<str:version>"
urlpatterns = [
    path("v2/health/live", live),
    path("v2/health/ready", ready),
    path("v2", server),
    path("v2/repository/index", index),
    path("v2/repository/models/<str:name>/load", load),
    path("v2/repository/models/<str:name>/unload", unload),
    *(path(base, model) for base in (ONE, VERSION)),
    *(path(f"{base}/ready", model_ready) for base in (ONE, VERSION)),
    *(path(f"{base}/infer", infer) for base in (ONE, VERSION)),
    path("v2/<path:rest>", nothing),
]
