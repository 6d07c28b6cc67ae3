"""What a line of the log says, and what it keeps to itself."""

import json
import logging
from typing import Any

from common.logs import JsonFormatter
from common.requests import current_request_id, current_tenant_id


def line(**fields: Any) -> dict[str, Any]:
    record = logging.makeLogRecord({"msg": "job_ended", "name": "tenants.jobs", "levelname": "INFO"} | fields)
    said: dict[str, Any] = json.loads(JsonFormatter().format(record))
    return said


def test_a_line_carries_its_request_and_its_tenant() -> None:
    ids = current_request_id.set("request-1"), current_tenant_id.set("acme")
    said = line(duration_s=0.5)
    current_request_id.reset(ids[0])
    current_tenant_id.reset(ids[1])

    assert (said["event"], said["request_id"], said["tenant"], said["duration_s"]) == (
        "job_ended",
        "request-1",
        "acme",
        0.5,
    )
    assert "tenant" not in line()


def test_a_requests_path_is_not_said() -> None:
    assert "request" not in line(request="<WSGIRequest: GET '/reset/MQ/secret'>")
