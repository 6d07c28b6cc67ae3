"""One event a line, as JSON, with the tenant and the request that it belongs to."""

import json
import logging
from typing import Any

from common.requests import current_request_id, current_tenant_id

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
UNSAID = frozenset(["request"])  # Django's own lines bring it; its path may hold a reset link's secret


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object; whatever `extra=` names becomes a field."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if request_id := current_request_id.get():
            line["request_id"] = request_id
        if tenant_id := current_tenant_id.get():
            line["tenant"] = tenant_id
        line |= {name: value for name, value in vars(record).items() if name not in STANDARD | UNSAID}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
