"""The OpenAPI description of `predict`, which is no DRF view and so describes itself by hand."""

from typing import Any

VALUES = {"description": "JSON values: numbers, strings, nulls where the signature allows them, or lists of them."}
ROWS = {"type": "array", "items": VALUES}
REQUEST: dict[str, Any] = {
    "type": "object",
    "description": "Exactly one of instances, inputs, dataframe_split, dataframe_records; at most one selector.",
    "properties": {
        "instances": ROWS,
        "inputs": {"oneOf": [ROWS, {"type": "object", "additionalProperties": ROWS}]},
        "dataframe_split": {
            "type": "object",
            "required": ["data"],
            "properties": {"columns": {"type": "array", "items": {"type": "string"}}, "data": ROWS},
        },
        "dataframe_records": {"type": "array", "items": {"type": "object"}},
        "version": {"type": "integer", "minimum": 1},
        "alias": {"type": "string"},
        "select": {
            "type": "object",
            "required": ["metric"],
            "properties": {"metric": {"type": "string"}, "direction": {"enum": ["max", "min"]}},
        },
        "probabilities": {"type": "boolean"},
        "async": {"type": "boolean"},
        "deadline_ms": {"type": "number", "exclusiveMinimum": 0},
    },
}
ANSWER: dict[str, Any] = {
    "type": "object",
    "required": ["id", "model", "version", "predictions"],
    "properties": {
        "id": {"type": "string"},
        "model": {"type": "string"},
        "version": {"type": "integer"},
        "predictions": {"oneOf": [{"type": "array"}, {"type": "object"}]},
        "probabilities": {"type": "array"},
        "classes": {"type": "array", "nullable": True},
    },
}
ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "request_id"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "request_id": {"type": "string"},
                "fields": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        }
    },
}
ERROR_STATUSES = ("400", "401", "403", "404", "409", "413", "422", "429", "503", "504")


def add_predict(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """drf-spectacular's postprocessing hook: adds the two predict paths to a tenant's schema."""
    paths = result.get("paths", {})
    models = next((path for path in paths if path.endswith("/models/{name}")), None)
    if models is not None:
        root = models.removesuffix("/models/{name}")
        paths[f"{root}/predict"] = {"post": _operation("predict_default", [])}
        name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        paths[f"{models}/predict"] = {"post": _operation("predict", [name])}
    return result


def _operation(operation_id: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    responses = {"200": _json("The answer.", ANSWER), "202": _json("With async: a job.", {"type": "object"})}
    responses |= {status: _json("Why not.", ERROR) for status in ERROR_STATUSES}
    return {
        "operationId": operation_id,
        "tags": ["predict"],
        "parameters": parameters,
        "requestBody": {"required": True, "content": {"application/json": {"schema": REQUEST}}},
        "responses": responses,
        "security": [{"bearerAuth": []}],
    }


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
