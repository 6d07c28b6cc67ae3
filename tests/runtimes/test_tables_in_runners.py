"""Profiles, measuring predictions, and tenants' own training programs in confined one-shot runners."""

from __future__ import annotations

import io
import pickle
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from runtimes.bundle import pack
from runtimes.client import HostClient, LoadRequest, Progress
from runtimes.errors import Cancelled, ModelError
from runtimes.limits import Limits
from runtimes.protocol import Prediction
from runtimes.signature import Batch
from tests.runtimes.conftest import bundle_of
from tests.runtimes.test_fit import fit, table


def described(client: HostClient, data: bytes, format_name: str) -> Any:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return client.profile(dataset_fd=file.fileno(), format_name=format_name)


def parquet(frame: pd.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.to_parquet(out, index=False)
    return out.getvalue()


@pytest.mark.parametrize("format_name", ["csv", "parquet"])
def test_a_profile_tells_what_is_in_every_column(client: HostClient, format_name: str) -> None:
    frame = table()
    frame["since"] = pd.date_range("2024-01-01", periods=400).strftime("%Y-%m-%d")
    frame["nothing"] = np.nan
    data = frame.to_csv(index=False).encode() if format_name == "csv" else parquet(frame)

    found = described(client, data, format_name)

    assert (found.row_count, found.names) == (400, list(frame.columns))
    kinds = {column.name: column.kind for column in found.columns}
    assert kinds == {
        "age": "number", "city": "text", "income": "number", "member": "boolean", "left": "text", "value": "number",
        "since": "date", "nothing": "empty",
    }  # fmt: skip
    age, city, since = (next(one for one in found.columns if one.name == name) for name in ("age", "city", "since"))
    assert (age.missing, age.distinct) == (0, frame.age.nunique())
    assert age.mean == pytest.approx(frame.age.mean())
    assert (age.quantiles[0].value, age.quantiles[-1].value) == (frame.age.min(), frame.age.max())
    assert sum(age.histogram.counts) == 400
    assert city.missing == frame.city.isna().sum()
    assert {one.value: one.count for one in city.top} == frame.city.value_counts().to_dict()
    assert (since.earliest, since.latest) == ("2024-01-01", "2025-02-03")
    assert found.sample.columns == list(frame.columns)
    assert len(found.sample.rows) == 100


@pytest.mark.parametrize(
    ("data", "format_name", "told"),
    [
        (b"PAR1 and no more PAR1", "parquet", "no Parquet file"),
        (b'{"a": 1}\nx\n', "jsonl", "Line 2, column 1 is no JSON"),
        (b"a,b\n1\n", "csv", "Line 2 has 1 cells"),
        (b"a,b\n1,2\n", "xlsx", "Tables are csv, jsonl, parquet"),
    ],
    ids=["parquet", "jsonl", "csv", "other"],
)
def test_a_file_that_is_no_table_has_no_profile(client: HostClient, data: bytes, format_name: str, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        described(client, data, format_name)


def test_numbers_at_the_edge_of_what_there_is_are_profiled(client: HostClient) -> None:
    found = described(client, b"a,b\n1e308,1\n-1e308,inf\n5e-324,2\n", "csv")
    assert [column.kind for column in found.columns] == ["number", "number"]


def scored(client: HostClient, report: Any, artifact: bytes, frame: pd.DataFrame, target: str, **options: Any) -> Any:
    declared = {"signature": report.signature.to_json(), **report.declared}
    load = LoadRequest(bundle_of(artifact), "acme", report.format, declared)
    runner = client.runner(f"scored {hash(artifact)}", lambda: load)

    def predict(batch: Batch) -> Prediction:
        return runner.predict(batch, deadline_s=30, probabilities=report.task == "classification")

    asked = {
        "predict": predict,
        "limits": Limits(),
        "on_progress": lambda progress: None,
        "is_cancelled": lambda: False,
        **options,
    }
    with tempfile.TemporaryFile() as file:
        file.write(frame.to_csv(index=False).encode())
        file.flush()
        return client.score(
            dataset_fd=file.fileno(), format_name="csv", target=target, task=report.task, signature=report.signature,
            **asked,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("trainer", "target", "other"),
    [("hist_gradient_boosting_classifier", "left", "value"), ("hist_gradient_boosting_regressor", "value", "left")],
    ids=["classes", "numbers"],
)
def test_a_version_is_measured_as_its_fit_was(client: HostClient, trainer: str, target: str, other: str) -> None:
    frame = table(2_300).drop(columns=other)
    report, artifact = fit(client, frame.head(1500), trainer=trainer, target=target, validation={"kind": "none"})
    rest = frame.tail(800)

    found = scored(client, report, artifact, rest, target).evaluation

    model = pickle.loads(artifact)
    rows = rest.drop(columns=target).astype({"city": object})
    if target == "left":
        assert found.metrics["accuracy"] == pytest.approx((model.predict(rows) == rest.left).mean())
        assert found.metrics.keys() == {"accuracy", "f1", "log_loss", "roc_auc"}
        assert found.confusion.labels == ["no", "yes"]
        assert np.sum(found.confusion.counts) == found.rows == 800
    else:
        assert found.metrics["mae"] == pytest.approx(abs(model.predict(rows) - rest.value).mean())
        assert sum(found.residuals.counts) == 800


def test_classes_are_the_same_as_numbers_and_as_texts(client: HostClient) -> None:
    frame = pd.DataFrame({"a": np.arange(200.0), "n": np.repeat([2, 10], 100)})
    report, artifact = fit(client, frame, target="n", validation={"kind": "none"})

    found = scored(client, report, artifact, frame.assign(n=frame.n.astype(float)), "n").evaluation

    assert found.metrics["accuracy"] > 0.95
    assert found.metrics["log_loss"] < 0.5
    assert found.confusion.labels == ["2", "10"]


def test_a_slow_model_is_asked_for_few_rows_at_once(client: HostClient) -> None:
    frame = table().drop(columns="value")
    report, artifact = fit(client, frame, validation={"kind": "none"})
    asked: list[int] = []

    def predict(batch: Batch) -> Prediction:
        asked.append(len(next(iter(batch.values()))))  # type: ignore[union-attr]
        time.sleep(0.06 * asked[-1])
        return Prediction({"label": np.array(["no"] * asked[-1], dtype=object)})

    with pytest.raises(Cancelled):
        scored(client, report, artifact, frame, "left", predict=predict, is_cancelled=lambda: len(asked) == 3)
    assert asked[:2] == [10, 5]
    assert asked[2] <= 5


def test_a_table_that_lacks_what_the_model_takes_is_told(client: HostClient) -> None:
    frame = table().drop(columns="value")
    report, artifact = fit(client, frame, validation={"kind": "none"})
    with pytest.raises(ModelError, match="lacks the column 'city'"):
        scored(client, report, artifact, frame.drop(columns="city"), "left")
    with pytest.raises(ModelError, match="no column 'gone'"):
        scored(client, report, artifact, frame, "gone")
    with pytest.raises(Cancelled):
        scored(client, report, artifact, frame, "left", is_cancelled=lambda: True)


PROGRAM = """
from sklearn.linear_model import LogisticRegression
from helpers.columns import numbers

class Model:
    def __init__(self, inner): self.inner = inner
    def predict(self, rows): return self.inner.predict(rows)

def train(data, target, params, report):
    print("rows:", len(data))
    report(50, "half", {"loss": 0.5})
    model = LogisticRegression(C=params["C"]).fit(numbers(data, target), data[target])
    return {"model": model, "metrics": {"accuracy": 0.75}}
"""
HELPER = "def numbers(data, target):\n    return data.drop(columns=target).select_dtypes('number').fillna(0)\n"
SCHEMA = '{"type": "object", "properties": {"C": {"type": "number", "exclusiveMinimum": 0, "default": 2}}}'


def program(train: str = PROGRAM, **files: str) -> dict[str, str]:
    return {
        "train.py": train,
        "helpers/__init__.py": "",
        "helpers/columns.py": HELPER,
        "params.schema.json": SCHEMA,
        **files,
    }


def trained(client: HostClient, files: dict[str, str], **options: Any) -> tuple[Any, bytes, list[Progress]]:
    progress: list[Progress] = []
    out = io.BytesIO()
    data = table().drop(columns="value").to_csv(index=False).encode()
    packed = [("data", data), *((f"code/{path}", text.encode()) for path, text in files.items())]
    asked: dict[str, Any] = {"params": {}, "target": "left", "limits": Limits(), **options}
    with tempfile.TemporaryFile() as file:
        pack([(path, io.BytesIO(content), len(content)) for path, content in packed], file)
        report = client.fit_custom(
            validation={}, bundle_fd=file.fileno(), out=out, format_name="csv", library_set="sklearn",
            on_progress=progress.append, is_cancelled=lambda: False, **asked,
        )  # fmt: skip
    return report, out.getvalue(), progress


def test_a_tenants_program_trains_tells_and_returns_a_model(client: HostClient) -> None:
    report, artifact, progress = trained(client, program())

    assert (report.metrics, report.claimed) == ({}, {"accuracy": 0.75})
    assert type(pickle.loads(artifact)).__name__ == "LogisticRegression"
    assert pickle.loads(artifact).C == 2
    assert "rows: 400" in [one.log for one in progress]
    assert {"loss": 0.5} in [one.metrics for one in progress]


def test_a_model_of_a_class_of_the_program_travels_with_its_code(client: HostClient) -> None:
    own = PROGRAM.replace('"model": model', '"model": Model(model)')
    _, artifact, _ = trained(client, program(own))
    example = {"columns": ["age", "income"], "data": [[30.0, 0.0]]}
    found = client.inspect(bundle_of(artifact), tenant="acme", metadata={"input_example": example})
    assert found.type_name == "Model"


@pytest.mark.parametrize(
    ("files", "params", "code", "told"),
    [
        (program(), {"C": -1}, "invalid_parameter", "params.C: -1 is less than"),
        (program("x = 1"), {}, "invalid_code", "defines no function"),
        (program("def train(*a):\n    return None"), {}, "invalid_code", "returned nothing"),
        (program("def train(*a):\n    return 1 / 0"), {}, "fit_failed", "train.py, line 2: ZeroDivisionError"),
        (program("import sys\nsys.exit(3)"), {}, "fit_failed", "train.py, line 2: SystemExit"),
        (program("def train(*a):\n    open('/etc/passwd')"), {}, "fit_failed", "PermissionError"),
        (program("import socket\ndef train(*a):\n    socket.socket()"), {}, "fit_failed", "PermissionError"),
        (program("import nonsense"), {}, "fit_failed", "No module named 'nonsense'"),
        (program(**{"params.schema.json": "{"}), {}, "invalid_code", "is no JSON schema"),
    ],
    ids=["params", "no function", "nothing", "raises", "exits", "reads", "connects", "imports", "schema"],
)
def test_what_is_wrong_with_a_program_is_told(
    client: HostClient, files: dict[str, str], params: dict[str, Any], code: str, told: str
) -> None:
    with pytest.raises(ModelError) as fault:
        trained(client, files, params=params)
    assert fault.value.code == code
    assert told in fault.value.message


def test_a_program_that_prints_without_end_is_bounded(client: HostClient) -> None:
    noisy = PROGRAM.replace('print("rows:", len(data))', "[print(n) for n in range(50_000)]")
    _, _, progress = trained(client, program(noisy))
    assert len([one for one in progress if one.log]) == 3_000


def test_this_process_keeps_its_descriptors(client: HostClient) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        described(client, b"a\n1\n", "csv")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
