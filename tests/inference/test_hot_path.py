"""The short way to a prediction: nothing is asked of PostgreSQL or Valkey, and the answer is the ordinary way's."""

import io
import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection
from django.test.utils import CaptureQueriesContext

from inference import shortcut
from inference.queued.valkey import valkey
from tenants.addressing import TenantPaths
from tenants.tables import listener
from tests.furnished import Furnished

ROWS = [[2.0, 0, 0, 0], [-2.0, 0, 0, 0]]
TENSORS = {"inputs": [{"name": "input", "shape": [2, 4], "datatype": "FP64", "data": ROWS}]}
PREDICT = "api/v1/models/churn/predict"
UNALIKE = ("id", "request_id")  # of each answer its own
# Headers from middlewares that an early refusal does not come by on the ordinary way.
SET_LATE = {
    "Content-Length",
    "Cross-Origin-Opener-Policy",
    "Referrer-Policy",
    "X-Content-Type-Options",
    "X-Frame-Options",
}

Answer = tuple[str, dict[str, str], Any]


class Web:
    """The platform's WSGI application, the short way included or not."""

    def __init__(self, furnished: Furnished, *, short: bool) -> None:
        inner = WSGIHandler()
        self._application = TenantPaths(shortcut.Shortcut(inner) if short else inner)
        self._furnished = furnished

    def post(self, path: str, body: Any, **environ: Any) -> Answer:
        """Status, headers and JSON of the answer."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        said: list[Any] = []
        request = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": f"{self._furnished.tenant.base_path}/{path}",
            "SCRIPT_NAME": "",
            "QUERY_STRING": "",
            "SERVER_NAME": "testserver",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "testserver",
            "HTTP_AUTHORIZATION": f"Bearer {self._furnished.token}",
            "HTTP_X_REQUEST_ID": "for-this-test",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(content)),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(content),
            **environ,
        }
        chunks = self._application(request, lambda status, headers, *_: said.extend((status, dict(headers))))
        return said[0], said[1], _alike(b"".join(chunks))


def _alike(content: bytes) -> Any:
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return content
    return {name: value for name, value in body.items() if name not in UNALIKE} if isinstance(body, dict) else body


@pytest.fixture
def short(furnished: Furnished) -> Web:
    """The application as the web server has it."""
    return Web(furnished, short=True)


@pytest.fixture
def ordinary(furnished: Furnished) -> Web:
    """The same without the short way."""
    return Web(furnished, short=False)


def warm(web: Web) -> None:
    """Go on once a prediction has been answered out of what this process remembers."""
    deadline = time.monotonic() + 20
    while not listener.is_believable():
        assert time.monotonic() < deadline, "changes are not heard"
        time.sleep(0.01)
    assert web.post(PREDICT, {"instances": ROWS})[0] == "200 OK"


def commands(work: Callable[[], object]) -> int:
    """How many commands Valkey gets while `work` goes on, whoever sends them."""
    before = _commands_so_far()
    work()
    return _commands_so_far() - before - 1


def _commands_so_far() -> int:
    return int(valkey().info("stats")["total_commands_processed"])


def test_a_warm_prediction_asks_neither_postgresql_nor_valkey(short: Web) -> None:
    warm(short)

    def predict() -> None:
        assert short.post(PREDICT, {"instances": ROWS})[2]["predictions"] == ["yes", "no"]

    with CaptureQueriesContext(connection) as captured:
        asked = min(commands(predict) for _ in range(10))  # of which some may be of a thread that writes what gathered
    assert (len(captured), asked) == (0, 0)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param(PREDICT, {"instances": ROWS, "version": 1}, id="version"),
        pytest.param(PREDICT, {"instances": ROWS, "alias": "champion"}, id="alias"),
        pytest.param("api/v1/predict", {"instances": ROWS}, id="default model"),
        pytest.param("v2/models/churn/infer", TENSORS, id="Open Inference"),
        pytest.param("models/churn/invocations", {"inputs": ROWS}, id="MLflow"),
    ],
)
def test_no_other_warm_prediction_asks_postgresql_either(short: Web, path: str, body: Any) -> None:
    warm(short)
    short.post(path, body)
    with CaptureQueriesContext(connection) as captured:
        assert short.post(path, body)[0] == "200 OK"
    assert len(captured) == 0


def test_a_warm_prediction_leaves_no_tenant_on_the_connection(short: Web) -> None:
    warm(short)
    assert connection.schema_name == "public"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "body", "environ"),
    [
        pytest.param(PREDICT, {"instances": ROWS}, {}, id="a prediction"),
        pytest.param(PREDICT, {"instances": ROWS, "probabilities": True}, {}, id="probabilities"),
        pytest.param("api/v1/predict", {"instances": ROWS}, {}, id="the default model"),
        pytest.param("v2/models/churn/infer", TENSORS, {}, id="Open Inference"),
        pytest.param("v2/models/churn/versions/1/infer", TENSORS, {}, id="Open Inference by version"),
        pytest.param("v2/models/churn/infer", {}, {}, id="Open Inference without inputs"),
        pytest.param("models/churn/invocations", {"inputs": ROWS}, {}, id="MLflow"),
        pytest.param("models/nobody/invocations", {"inputs": ROWS}, {}, id="MLflow and no such model"),
        pytest.param(PREDICT, {"instances": ROWS}, {"wsgi.url_scheme": "https"}, id="https"),
        pytest.param(PREDICT, {"instances": ROWS}, {"HTTP_X_REQUEST_ID": "!"}, id="no sane request id"),
        pytest.param(PREDICT, {"instances": [[1]]}, {}, id="rows that do not fit"),
        pytest.param(PREDICT, b"{", {}, id="no JSON"),
        pytest.param(PREDICT, {"instances": ROWS, "version": 99}, {}, id="no such version"),
        pytest.param("api/v1/models/nobody/predict", {"instances": ROWS}, {}, id="no such model"),
        pytest.param("api/v1/models/n\u00c3\u00a9/predict", {"instances": ROWS}, {}, id="a name beyond ASCII"),
        pytest.param("api/v1/models/a\0b/predict", {"instances": ROWS}, {}, id="a NUL in the path"),
        pytest.param(PREDICT, {"instances": ROWS}, {"QUERY_STRING": "a=%00"}, id="a NUL in a parameter"),
        pytest.param(PREDICT, {"instances": ROWS}, {"HTTP_AUTHORIZATION": "Bearer nobody"}, id="an unknown token"),
        pytest.param(PREDICT, {"instances": ROWS}, {"HTTP_AUTHORIZATION": "?"}, id="no token"),
        pytest.param(PREDICT, {"instances": ROWS}, {"PATH_INFO": f"/t/nobody/{PREDICT}"}, id="no such tenant"),
        pytest.param(PREDICT, {"instances": ROWS}, {"PATH_INFO": f"/t/-/{PREDICT}"}, id="no tenantId"),
        pytest.param(PREDICT, {"instances": ROWS}, {"PATH_INFO": f"/{PREDICT}"}, id="the operator's surface"),
        pytest.param(PREDICT, {"instances": ROWS}, {"HTTP_HOST": "a b"}, id="no host"),
        pytest.param(PREDICT, {"instances": ROWS}, {"CONTENT_LENGTH": str(1 << 40)}, id="a body over the limit"),
        pytest.param(PREDICT, {"instances": ROWS}, {"CONTENT_LENGTH": "0"}, id="an empty body"),
        pytest.param(PREDICT, {"instances": ROWS}, {"REQUEST_METHOD": "PUT"}, id="another method"),
    ],
)
def test_the_short_way_answers_as_the_ordinary_way_does(
    short: Web, ordinary: Web, path: str, body: Any, environ: dict[str, Any]
) -> None:
    expected = ordinary.post(path, body, **environ)
    status, headers, content = short.post(path, body, **environ)
    if environ.get("HTTP_X_REQUEST_ID"):
        assert len(headers.pop("X-Request-ID")) == len(expected[1].pop("X-Request-ID")) == 32
    unsaid = {name: headers[name] for name in headers.keys() & SET_LATE - expected[1].keys()}
    assert (status, headers, content) == (expected[0], expected[1] | unsaid, expected[2])


def test_what_is_to_be_fetched_later_lies_at_the_same_address(short: Web, ordinary: Web) -> None:
    answers = [web.post(PREDICT, {"instances": ROWS, "async": True}) for web in (ordinary, short)]
    where = [headers["Location"].rpartition("/")[0] for _, headers, _ in answers]
    assert [status for status, _, _ in answers] == ["202 Accepted"] * 2
    assert where[0] == where[1] == "/t/furnished/api/v1/predictions"


def test_a_bug_is_told_as_everywhere(
    short: Web, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    warm(short)
    monkeypatch.setattr("inference.lanes.predict", lambda *_, **__: 1 / 0)
    with caplog.at_level(logging.ERROR, "django.request"):
        status, headers, content = short.post(PREDICT, {"instances": ROWS})
    assert status == "500 Internal Server Error"
    assert content["error"]["code"] == "internal_error"
    assert headers["X-Request-ID"] == "for-this-test"
    assert any("ZeroDivisionError" in (record.exc_text or "") for record in caplog.records)


def test_refusals_are_logged_as_everywhere(short: Web, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "django.request"):
        short.post(PREDICT, {"instances": [[1]]})
    said = [record.getMessage() for record in caplog.records if record.name == "django.request"]
    assert said == [f"Unprocessable Entity: /t/furnished/{PREDICT}"]


def test_many_at_once_get_their_own_answers(short: Web) -> None:
    warm(short)
    ready = threading.Barrier(4)

    def ask(number: int) -> Iterable[Any]:
        ready.wait(30)
        try:
            for _ in range(10):
                yield short.post(PREDICT, {"instances": [ROWS[number % 2]] * (number + 1)})[2]["predictions"]
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda number: list(ask(number)), range(4)))
    assert answers == [[[("yes", "no")[number % 2]] * (number + 1)] * 10 for number in range(4)]
