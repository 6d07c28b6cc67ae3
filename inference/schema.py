"""The OpenAPI description of `predict`, which is no DRF view and so describes itself by hand."""

from typing import Any

from inference.decoding import FORMS
from inference.serializers import AsyncPredictionSerializer
from tenants.operations import ANYWHERE, IDEMPOTENCY_KEY, refusals
from tenants.serializers import NAME_SCHEMA

VALUES = {"description": "JSON values: numbers, strings, nulls where the signature allows them, or lists of them."}
ROWS = {"type": "array", "items": VALUES}
REQUEST: dict[str, Any] = {
    "type": "object",
    "description": "Exactly one of instances, inputs, dataframe_split, dataframe_records; at most one of version, "
    "alias, select.",
    "properties": {
        "instances": ROWS,
        "inputs": {"oneOf": [ROWS, {"type": "object", "additionalProperties": ROWS}]},
        "dataframe_split": {
            "type": "object",
            "required": ["data"],
            "properties": {"columns": {"type": "array", "items": {"type": "string"}}, "data": ROWS},
        },
        "dataframe_records": {"type": "array", "items": {"type": "object"}},
        "version": {"type": "integer", "minimum": 1, "nullable": True},
        "alias": {"type": "string", "nullable": True},
        "select": {
            "type": "object",
            "nullable": True,
            "required": ["metric"],
            "properties": {
                "metric": {"type": "string"},
                "direction": {"type": "string", "enum": ["max", "min"], "default": "max"},
            },
        },
        "probabilities": {"type": "boolean", "nullable": True},
        "async": {"type": "boolean", "nullable": True, "description": "Answer 202 at once, and predict later."},
        "deadline_ms": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "nullable": True},
    },
    "additionalProperties": False,
    "oneOf": [{"required": [form]} for form in FORMS],
}
ANSWER: dict[str, Any] = {
    "type": "object",
    "description": "A predictor with several outputs answers them by name.",
    "required": ["id", "model", "version", "predictions"],
    "properties": {
        "id": {"type": "string"},
        "model": {"type": "string"},
        "version": {"type": "integer"},
        "predictions": {"oneOf": [ROWS, {"type": "object", "additionalProperties": ROWS}]},
        "probabilities": ROWS,
        "classes": {"type": "array", "items": {}, "nullable": True},
    },
}
LOCATION = {"schema": {"type": "string", "format": "uri-reference"}, "required": True}
REFUSALS = refusals((*ANYWHERE, 404, 409, 413, 422, 429, 504))
SECURITY: list[dict[str, list[str]]] = [{"bearerAuth": []}, {"basicAuth": []}, {"sessionAuth": []}]


def add_predict(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """drf-spectacular's postprocessing hook: adds the two predict paths to a tenant's document."""
    paths = result.get("paths", {})
    models = next((path for path in paths if path.endswith("/models/{name}")), None)
    if models is not None:
        root = models.removesuffix("/models/{name}")
        name = {"name": "name", "in": "path", "required": True, "schema": NAME_SCHEMA}
        paths[f"{root}/predict"] = {"post": _operation("predict_default", "By the tenant's default model.", [])}
        paths[f"{models}/predict"] = {"post": _operation("predict", "By one model.", [name])}
        result["components"]["schemas"] |= {"PredictRequest": REQUEST, "Prediction": ANSWER}
    return result


def _operation(operation_id: str, description: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    later = f"With `async`: {(AsyncPredictionSerializer.__doc__ or '').lower()}"
    answers = {
        "200": _json("The answer.", "Prediction"),
        "202": _json(later, "AsyncPrediction") | {"headers": {"Location": LOCATION}},
    }
    return {
        "operationId": operation_id,
        "description": description,
        "tags": ["predict"],
        "parameters": [*parameters, IDEMPOTENCY_KEY],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PredictRequest"}}},
        },
        "responses": answers | REFUSALS,
        "security": SECURITY,
    }


def _json(description: str, component: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{component}"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}
