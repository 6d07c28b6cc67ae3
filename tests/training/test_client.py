"""The Python client says to the platform what a frame or a program holds, and is patient with one that is away."""

import json
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients" / "python" / "src"))  # a project of its own
from tenantry_client import Tenant, TenantryError, connection, models, runs

FRAME = pd.DataFrame(
    {
        "tiny": [1e-12, 0.1 + 0.2],
        "since": pd.to_datetime(["2020-01-01", ""]),
        "count": pd.array([1, None], dtype="Int64"),
        "kind": pd.Categorical(["a", None]),
        "is_new": [True, False],
    }
)


def test_a_frame_travels_as_it_is():
    split = models._rows(FRAME)["dataframe_split"]
    assert split["columns"] == list(FRAME.columns)
    assert split["data"] == [[1e-12, "2020-01-01T00:00:00", 1, "a", True], [0.1 + 0.2, None, None, None, False]]
    assert json.loads(json.dumps(split, allow_nan=False)) == split


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (np.array([[1, 2], [3, 4]]), {"instances": [[1, 2], [3, 4]]}),
        ([[1, 2]], {"instances": [[1, 2]]}),
        ([{"a": 1}], {"dataframe_records": [{"a": 1}]}),
        ([], {"instances": []}),
    ],
    ids=["array", "lists", "records", "nothing"],
)
def test_rows_are_named_by_what_they_are(rows, told):
    assert models._rows(rows) == told


def test_a_program_is_its_code_and_its_schema(tmp_path):
    for path in ("train.py", "params.schema.json", "parts/__init__.py", "__pycache__/train.py", "data.csv"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("{}")
    kept = zipfile.ZipFile(runs._zipped(tmp_path)).namelist()
    assert sorted(kept) == ["params.schema.json", "parts/__init__.py", "train.py"]
    (tmp_path / "other.py").write_text("alone")
    assert zipfile.ZipFile(runs._zipped(tmp_path / "other.py")).read("train.py") == b"alone"


@pytest.fixture
def scripted(monkeypatch) -> Iterator[tuple[Tenant, list[tuple[int, Any]]]]:
    """A tenant's client, and what somebody who stands where its platform would be answers, one after the other."""
    told: list[tuple[int, Any]] = []
    monkeypatch.setattr(connection, "PAUSES_S", (0.0, 0.0))

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = told.pop(0)
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Tenant(f"http://127.0.0.1:{server.server_port}/t/acme", "token"), told
        server.shutdown()


def refusal(code):
    return {"error": {"code": code, "message": "Not now.", "fields": {"a": "b"}}}


def test_what_passes_is_waited_for_and_a_refusal_is_told(scripted):
    tenant, answers = scripted
    answers += [(503, refusal("host_unavailable")), (502, "?"), (200, {"results": []})]
    assert tenant.trainers() == {}
    answers += [(503, refusal("host_unavailable"))] * 3
    with pytest.raises(TenantryError, match=r"Not now. \(503 host_unavailable\)"):
        tenant.trainers()
    answers += [(403, refusal("scope_required"))]
    with pytest.raises(TenantryError) as refused:
        tenant.trainers()
    assert (refused.value.status, refused.value.code, refused.value.fields) == (403, "scope_required", {"a": "b"})
    assert answers == []
