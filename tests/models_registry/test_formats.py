"""Every format from an upload to its answers, over HTTP: what the platform says equals what the library says."""

import io
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest

from models_registry.models import ModelVersion
from tenants.scope import tenant_scope
from tests.clients import TenantClient
from tests.inference.conftest import inspected
from tests.models_registry.test_uploads import content_of, upload
from tests.runtimes.bundles import files_in
from tests.runtimes.test_folders import zipped

RANDOM = np.random.default_rng(12)
ROWS = np.round(RANDOM.normal(size=(60, 4)), 3)
TARGET = np.where(ROWS[:, 0] > 0, "left", "stayed")
NUMBERS = (ROWS[:, 0] > 0).astype(int)
ASKED = ROWS[:3].tolist()
SOURCE = "class Total:\n    n_features_in_ = 4\n    def predict(self, rows):\n        return rows.sum(axis=1)\n"
Save = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """An upload, and what its library answers to the asked rows."""

    format: str
    files: Mapping[str, bytes]
    answers: Any
    metadata: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=lambda: {"instances": ASKED})


def classifier() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression().fit(ROWS, TARGET)


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def folder_of(tmp_path: Path, save: Save) -> dict[str, bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(tmp_path / "saved")
    return files_in(tmp_path / "saved")


def network() -> Any:
    import torch

    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(1)).eval()


def of_network(format_name: str, files: Mapping[str, bytes], **metadata: Any) -> Case:
    import torch

    answers = network()(torch.tensor(ASKED)).argmax(dim=1).tolist()
    return Case(format_name, files, answers, {"labels": [0, 1, 2], **metadata})


def sklearn_pickle(tmp_path: Path) -> Case:
    return Case("sklearn", {"model.pkl": pickle.dumps(classifier())}, classifier().predict(ASKED).tolist())


def sklearn_joblib(tmp_path: Path) -> Case:
    data = written(lambda file: joblib.dump(classifier(), file, compress=3))
    return Case("sklearn", {"model.joblib": data}, classifier().predict(ASKED).tolist())


def sklearn_skops(tmp_path: Path) -> Case:
    import skops.io

    return Case("skops", {"model.skops": skops.io.dumps(classifier())}, classifier().predict(ASKED).tolist())


def cloudpickle_with_code(tmp_path: Path) -> Case:
    return Case(
        "sklearn",
        {"model.pkl": b"\x80\x02cauthor.totals\nTotal\n)\x81.", "code/author/totals.py": SOURCE.encode()},
        pytest.approx(np.sum(ASKED, axis=1).tolist()),
    )


def torch_layers(tmp_path: Path) -> Case:
    import torch

    data = written(lambda file: torch.save(network().state_dict(), file))
    layers = [{"type": "linear", "in_features": 4, "out_features": 3}, {"type": "softmax", "dim": 1}]
    return of_network("torch", {"model.pth": data}, architecture=layers)


def torch_model_py(tmp_path: Path) -> Case:
    import torch

    data = written(lambda file: torch.save(network().state_dict(), file))
    source = b"from torch import nn\ndef build_model():\n    return nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))\n"
    return of_network("torch", {"weights.pth": data, "model.py": source})


def torch_module(tmp_path: Path) -> Case:
    import torch

    return of_network("torch", {"model.pth": written(lambda file: torch.save(network(), file))})


def torchscript(tmp_path: Path) -> Case:
    import torch

    data = written(lambda file: torch.jit.save(torch.jit.script(network()), file))
    return of_network("torchscript", {"model.pt": data})


def torch_export(tmp_path: Path) -> Case:
    import torch

    program = torch.export.export(network(), (torch.zeros(2, 4),), dynamic_shapes=({0: torch.export.Dim("rows")},))
    return of_network("torch_export", {"model.pt2": written(lambda file: torch.export.save(program, file))})


def onnx(tmp_path: Path) -> Case:
    import skl2onnx

    data = skl2onnx.to_onnx(classifier(), ROWS[:1].astype("float32")).SerializeToString()
    return Case("onnx", {"model.onnx": data}, classifier().predict(ASKED).tolist())


def xgboost(tmp_path: Path) -> Case:
    library = pytest.importorskip("xgboost")
    model = library.XGBClassifier(n_estimators=4).fit(ROWS, NUMBERS)
    model.save_model(str(tmp_path / "model.ubj"))
    return Case("xgboost", {"model.ubj": (tmp_path / "model.ubj").read_bytes()}, model.predict(ASKED).tolist())


def lightgbm(tmp_path: Path) -> Case:
    library = pytest.importorskip("lightgbm")
    model = library.LGBMClassifier(n_estimators=4, verbose=-1).fit(ROWS, NUMBERS)
    model.booster_.save_model(str(tmp_path / "model.txt"))
    return Case("lightgbm", {"model.txt": (tmp_path / "model.txt").read_bytes()}, model.predict(ASKED).tolist())


def mlflow_folder(tmp_path: Path) -> Case:
    mlflow = pytest.importorskip("mlflow.sklearn")
    frame = pd.DataFrame(ROWS, columns=list("abcd"))
    model = classifier().fit(frame, TARGET)
    files = folder_of(
        tmp_path, lambda path: mlflow.save_model(model, str(path), input_example=frame.head(2), pip_requirements=[])
    )
    body = {"dataframe_split": {"columns": list("abcd"), "data": ASKED}}
    return Case("skops", files, model.predict(frame.head(3)).tolist(), body=body)


def mlflow_zip(tmp_path: Path) -> Case:
    folder = mlflow_folder(tmp_path)
    return Case("skops", {"model.zip": zipped(dict(folder.files))}, folder.answers, body=folder.body)


def mlflow_python_model(tmp_path: Path) -> Case:
    mlflow = pytest.importorskip("mlflow.pyfunc")
    (tmp_path / "churnlib.py").write_text(SOURCE)
    (tmp_path / "entry.py").write_text(
        "import mlflow\n"
        "class Model(mlflow.pyfunc.PythonModel):\n    def predict(self, context, model_input, params=None):\n"
        "        from churnlib import Total\n"
        "        return {'total': Total().predict(model_input), 'first': model_input[:, 0]}\n"
        "mlflow.models.set_model(Model())\n"
    )
    code = [str(tmp_path / "churnlib.py")]
    entry = str(tmp_path / "entry.py")
    files = folder_of(
        tmp_path,
        lambda path: mlflow.save_model(
            str(path), python_model=entry, code_paths=code, input_example=ROWS[:2], pip_requirements=[]
        ),
    )
    return Case(
        "pyfunc", files, {"total": pytest.approx(np.sum(ASKED, axis=1).tolist()), "first": [row[0] for row in ASKED]}
    )


CASES = (
    sklearn_pickle,
    sklearn_joblib,
    sklearn_skops,
    cloudpickle_with_code,
    torch_layers,
    torch_model_py,
    torch_module,
    torchscript,
    torch_export,
    onnx,
    xgboost,
    lightgbm,
    mlflow_folder,
    mlflow_zip,
    mlflow_python_model,
)


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_a_model_answers_over_http_as_at_home(
    make: Callable[[Path], Case], acme: Any, client_for: Callable[..., Any], model_host: str, tmp_path: Path
) -> None:
    case, client = make(tmp_path), client_for(acme)
    client.post_json("api/v1/models", {"name": "churn"})
    version = _uploaded(client, case, acme)

    assert (version["state"], version["format"]) == ("ready", case.format), version["reason"]
    assert version["inspection"]["scan"]["scanner"].startswith("picklescan")
    assert client.post_json("api/v1/models/churn/versions/1/activate").status_code in (200, 201)
    answer = client.post_json("api/v1/models/churn/predict", case.body)
    assert answer.status_code == 200, answer.content
    assert answer.json()["predictions"] == case.answers
    for path, data in case.files.items():
        assert content_of(client.get(f"api/v1/models/churn/versions/1/files/{path}")) == data


def _uploaded(client: TenantClient, case: Case, acme: Any) -> dict[str, Any]:
    """Version 1 as it is shown after its inspection."""
    sent = upload(client, dict(case.metadata), **case.files)
    assert sent.status_code == 201, sent.content
    with tenant_scope(acme):
        inspected(ModelVersion.objects.get(number=1))
    shown: dict[str, Any] = client.get("api/v1/models/churn/versions/1").json()
    return shown
