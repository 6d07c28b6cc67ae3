"""MLflow model folders written by MLflow itself, as folders and as zips."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from runtimes.client import HostClient
from tests.runtimes.bundles import files_in, inspected, rejection, served
from tests.runtimes.test_folders import zipped

mlflow = pytest.importorskip("mlflow")
pytestmark = pytest.mark.filterwarnings("ignore")

RANDOM = np.random.default_rng(8)
FRAME = pd.DataFrame({"age": RANDOM.normal(size=60), "city": RANDOM.choice(["rome", "oslo"], 60), "visits": range(60)})
TARGET = np.where(FRAME["age"] > 0, "left", "stayed")
Save = Callable[..., dict[str, bytes]]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """`save(mlflow.sklearn, model, …)`: the files of the folder that MLflow writes."""

    def make(flavour: Any, *model: Any, **options: Any) -> dict[str, bytes]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            flavour.save_model(*model, path=str(tmp_path / "model"), pip_requirements=[], **options)
        return files_in(tmp_path / "model")

    return make


@pytest.fixture(scope="module")
def pipeline() -> Any:
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    prepare = make_column_transformer((texts, ["city"]), remainder=SimpleImputer())
    return make_pipeline(prepare, LogisticRegression()).fit(FRAME, TARGET)


def batch(count: int = 5) -> dict[str, np.ndarray]:
    return {str(name): FRAME[name].head(count).to_numpy() for name in FRAME}


@pytest.mark.parametrize(("written", "format_name"), [("skops", "skops"), ("cloudpickle", "sklearn")])
def test_a_pipeline_keeps_its_columns(
    client: HostClient, save: Save, pipeline: Any, written: str, format_name: str
) -> None:
    import mlflow.sklearn

    signature = mlflow.models.infer_signature(FRAME, TARGET)
    files = save(
        mlflow.sklearn,
        pipeline,
        signature=signature,
        input_example=FRAME.head(2),
        serialization_format=written,
        **({"skops_trusted_types": ["numpy.dtype"]} if written == "skops" else {}),
    )
    found = inspected(client, files)

    prediction = served(client, files, batch(), found, probabilities=True)

    fields = {field.name: (field.dtype, field.nullable) for field in found.signature.inputs}
    assert found.format == format_name
    assert fields == {"age": ("float64", True), "city": ("string", True), "visits": ("int64", False)}
    assert found.made_with.keys() == {"mlflow", "scikit-learn"}
    np.testing.assert_allclose(prediction.probabilities, pipeline.predict_proba(FRAME.head(5)))  # type: ignore[arg-type]


def test_a_zipped_folder_is_read_where_it_lies(client: HostClient, save: Save) -> None:
    import mlflow.sklearn

    model = LogisticRegression().fit(FRAME[["age"]].to_numpy(), TARGET)
    files = save(mlflow.sklearn, model)
    upload = {"churn.zip": zipped({f"churn/{path}": data for path, data in files.items()})}
    found = inspected(client, upload)

    prediction = served(client, upload, np.array([[2.0], [-2.0]]), found)

    assert prediction.outputs["prediction"].tolist() == ["left", "stayed"]


def test_an_onnx_graph_is_served(client: HostClient, save: Save) -> None:
    import mlflow.onnx
    import skl2onnx

    rows = RANDOM.normal(size=(30, 4)).astype("float32")
    model = LogisticRegression().fit(rows, (rows[:, 0] > 0).astype(int))
    files = save(mlflow.onnx, skl2onnx.to_onnx(model, rows[:1]))
    found = inspected(client, files)

    assert (found.format, found.made_with["mlflow"]) == ("onnx", mlflow.__version__)
    assert served(client, files, rows, found).outputs["prediction"].tolist() == model.predict(rows).tolist()


def network(kind: str) -> Any:
    import torch

    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh()).eval()
    return torch.jit.script(model) if kind == "torchscript" else model


@pytest.mark.parametrize("kind", ["torch", "torchscript", "torch_export"])
def test_a_network_predicts_as_it_does_at_home(client: HostClient, save: Save, kind: str) -> None:
    import mlflow.pytorch
    import torch

    rows = RANDOM.normal(size=(5, 4)).astype("float32")
    options = {"input_example": rows} if kind == "torch_export" else {}
    written = "pt2" if kind == "torch_export" else "pickle"
    files = save(mlflow.pytorch, network(kind), serialization_format=written, **options)
    found = inspected(client, files)

    prediction = served(client, files, rows, found)

    assert (found.format, found.made_with["torch"].partition("+")[0]) == (kind, torch.__version__.partition("+")[0])
    expected = network(kind)(torch.from_numpy(rows)).detach().numpy()
    np.testing.assert_allclose(prediction.outputs["output"], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_a_booster_predicts_as_it_does_at_home(client: HostClient, save: Save, name: str) -> None:
    library = pytest.importorskip(name)
    flavour = pytest.importorskip(f"mlflow.{name}")
    rows = RANDOM.normal(size=(60, 4))
    options = {"verbose": -1} if name == "lightgbm" else {}
    kind = {"xgboost": "XGBClassifier", "lightgbm": "LGBMClassifier"}[name]
    model = getattr(library, kind)(n_estimators=5, **options).fit(rows, (rows[:, 0] > 0).astype(int))
    files = save(flavour, model)
    found = inspected(client, files)

    assert served(client, files, rows, found).outputs["prediction"].tolist() == model.predict(rows).tolist()


class Scaled(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    """A model of an author's, with an artifact and named outputs."""

    def load_context(self, context: Any) -> None:
        with Path(context.artifacts["factor"]).open() as file:
            self.factor = float(file.read())

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return {"scaled": model_input["age"] * self.factor, "city": model_input["city"]}


class Hinted(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    """A model of texts, in MLflow's newer style."""

    def predict(self, model_input: list[str], params: Any = None) -> list[int]:
        return [len(text) for text in model_input]


@pytest.fixture
def by_value() -> Iterator[None]:
    """Pickle the models of this module as those of a notebook are: with their code."""
    import cloudpickle

    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


@pytest.mark.usefixtures("by_value")
def test_a_python_model_reads_its_artifacts_and_names_its_outputs(
    client: HostClient, save: Save, tmp_path: Path
) -> None:
    import mlflow.pyfunc

    (tmp_path / "factor.txt").write_text("2.5")
    signature = mlflow.models.infer_signature(FRAME)
    artifacts = {"factor": str(tmp_path / "factor.txt")}
    files = save(mlflow.pyfunc, python_model=Scaled(), artifacts=artifacts, signature=signature)
    found = inspected(client, files)

    outputs = served(client, files, batch(), found).outputs

    assert (found.format, found.type_name) == ("pyfunc", "Scaled")
    np.testing.assert_allclose(outputs["scaled"], FRAME["age"].head(5) * 2.5)
    assert outputs["city"].tolist() == FRAME["city"].head(5).tolist()


@pytest.mark.usefixtures("by_value")
def test_a_model_of_texts_gets_a_list_of_them(client: HostClient, save: Save) -> None:
    import mlflow.pyfunc

    files = save(mlflow.pyfunc, python_model=Hinted())
    found = inspected(client, files)
    texts = np.array(["a", "bcd"], dtype=object)

    assert found.signature.inputs[0].dtype == "string"
    assert served(client, files, texts, found).outputs["prediction"].tolist() == [1, 3]


def test_a_python_models_code_travels(client: HostClient, save: Save, tmp_path: Path) -> None:
    import mlflow.pyfunc

    (tmp_path / "churnlib.py").write_text("def total(frame):\n    return frame.sum(axis=1)\n")
    (tmp_path / "entry.py").write_text(
        "import mlflow\nfrom mlflow.pyfunc import PythonModel\n"
        "class Model(PythonModel):\n    def predict(self, context, model_input, params=None):\n"
        "        import churnlib\n        return churnlib.total(model_input)\nmlflow.models.set_model(Model())\n"
    )
    numbers = FRAME[["age", "visits"]]
    files = save(
        mlflow.pyfunc,
        python_model=str(tmp_path / "entry.py"),
        code_paths=[str(tmp_path / "churnlib.py")],
        signature=mlflow.models.infer_signature(numbers),
    )
    found = inspected(client, files)

    outputs = served(client, files, {name: numbers[name].to_numpy() for name in numbers}, found).outputs

    assert "code/churnlib.py" in files
    np.testing.assert_allclose(outputs["prediction"], numbers.sum(axis=1))


def test_a_loader_of_the_authors_gets_the_path_of_its_data(client: HostClient, save: Save, tmp_path: Path) -> None:
    import mlflow.pyfunc

    (tmp_path / "threshold.txt").write_text("0.5")
    (tmp_path / "loading.py").write_text(
        "class Model:\n    def __init__(self, limit):\n        self.limit = limit\n"
        "    def predict(self, frame):\n        return frame['age'] > self.limit\n"
        "def _load_pyfunc(path):\n    with open(path) as file:\n        return Model(float(file.read()))\n"
    )
    files = save(
        mlflow.pyfunc,
        loader_module="loading",
        data_path=str(tmp_path / "threshold.txt"),
        code_paths=[str(tmp_path / "loading.py")],
        signature=mlflow.models.infer_signature(FRAME[["age"]]),
    )
    found = inspected(client, files)

    outputs = served(client, files, {"age": FRAME["age"].to_numpy()}, found).outputs

    assert outputs["prediction"].tolist() == (FRAME["age"] > 0.5).tolist()


def test_a_flavour_of_another_library_is_named(client: HostClient) -> None:
    described = b"flavors:\n  prophet: {}\n  python_function: {loader_module: mlflow.prophet}\n"

    assert "'prophet'" in rejection(client, {"MLmodel": described, "model.pr": b"x"}).reason
