"""XGBoost and LightGBM: their own files and their scikit-learn wrappers, with answers equal to the libraries' own."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from runtimes.client import HostClient
from runtimes.errors import ArtifactRejected
from runtimes.formats import boosters
from tests.runtimes.bundles import inspected, rejection, served

RANDOM = np.random.default_rng(6)
ROWS = RANDOM.normal(size=(90, 4))
ROWS[::7, 1] = np.nan
FRAME = pd.DataFrame(ROWS, columns=["age", "income", "visits", "days"])
TWO, THREE = (ROWS[:, 0] > 0).astype(int), np.digitize(ROWS[:, 0], [-0.5, 0.5])


@pytest.fixture
def xgboost() -> Any:
    return pytest.importorskip("xgboost")


@pytest.fixture
def lightgbm() -> Any:
    return pytest.importorskip("lightgbm")


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    """`written(model, "model.json")`: the file that the library writes under this name."""

    def write(model: Any, name: str) -> dict[str, bytes]:
        model.save_model(str(tmp_path / name))
        return {"upload": (tmp_path / name).read_bytes()}  # the name says nothing

    return write


@pytest.mark.parametrize("ending", ["json", "ubj"])
@pytest.mark.parametrize("target", [TWO, THREE], ids=["two classes", "three classes"])
def test_an_xgboost_classifier_predicts_as_it_does_at_home(
    client: HostClient, xgboost: Any, written: Any, ending: str, target: np.ndarray
) -> None:
    model = xgboost.XGBClassifier(n_estimators=6, max_depth=3).fit(ROWS, target)
    files = written(model, f"model.{ending}")
    found = inspected(client, files)

    prediction = served(client, files, ROWS, found, probabilities=True)

    assert (found.format, found.task) == ("xgboost", "classification")
    assert found.made_with == {"xgboost": xgboost.__version__}
    assert prediction.outputs["prediction"].tolist() == model.predict(ROWS).tolist()
    np.testing.assert_allclose(prediction.probabilities, model.predict_proba(ROWS), atol=1e-6)  # type: ignore[arg-type]


def test_an_xgboost_model_keeps_its_columns_and_takes_labels(client: HostClient, xgboost: Any, written: Any) -> None:
    model = xgboost.XGBClassifier(n_estimators=6).fit(FRAME, TWO)
    files = written(model, "model.json")
    found = inspected(client, files, labels=["stayed", "left"])
    batch = {str(name): FRAME[name].to_numpy() for name in reversed(FRAME.columns)}

    prediction = served(client, files, batch, found, labels=["stayed", "left"])

    assert [(field.name, field.nullable) for field in found.signature.inputs] == [(name, True) for name in FRAME]
    expected = np.array(["stayed", "left"])[model.predict(FRAME)]
    assert prediction.outputs["prediction"].tolist() == expected.tolist()


@pytest.mark.parametrize("objective", ["multi:softmax", "binary:logitraw", "reg:squarederror", "count:poisson"])
def test_an_xgboost_booster_of_any_objective_is_served(
    client: HostClient, xgboost: Any, written: Any, objective: str
) -> None:
    target, options = (THREE, {"num_class": 3}) if objective.startswith("multi") else (TWO, {})
    data = xgboost.DMatrix(ROWS, target)
    model = xgboost.train({"objective": objective, "max_depth": 2, **options}, data, 5)
    files = written(model, "model.ubj")
    found = inspected(client, files)

    prediction = served(client, files, ROWS, found).outputs["prediction"]

    expected = model.predict(data)
    if objective == "binary:logitraw":
        expected = (expected > 0).astype(int)
    np.testing.assert_allclose(prediction, expected, atol=1e-6)


@pytest.mark.parametrize("target", [TWO, THREE], ids=["two classes", "three classes"])
def test_a_lightgbm_classifier_predicts_as_it_does_at_home(
    client: HostClient, lightgbm: Any, written: Any, target: np.ndarray
) -> None:
    model = lightgbm.LGBMClassifier(n_estimators=6, verbose=-1).fit(FRAME, target)
    files = written(model.booster_, "model.txt")
    found = inspected(client, files)

    prediction = served(client, files, {str(n): FRAME[n].to_numpy() for n in FRAME}, found, probabilities=True)

    assert (found.format, found.task, found.signature.layout) == ("lightgbm", "classification", "columns")
    assert prediction.outputs["prediction"].tolist() == model.predict(FRAME).tolist()
    np.testing.assert_allclose(prediction.probabilities, model.predict_proba(FRAME))  # type: ignore[arg-type]


def test_a_lightgbm_regressor_predicts_as_it_does_at_home(client: HostClient, lightgbm: Any, written: Any) -> None:
    model = lightgbm.LGBMRegressor(n_estimators=6, verbose=-1).fit(ROWS, ROWS[:, 2])
    files = written(model.booster_, "model.txt")
    found = inspected(client, files)

    assert (found.task, found.signature.layout) == ("regression", "tensor")
    np.testing.assert_allclose(served(client, files, ROWS, found).outputs["prediction"], model.predict(ROWS))


@pytest.mark.parametrize("threads", [None, 8])
@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_a_pickled_wrapper_predicts_as_it_does_at_home(client: HostClient, name: str, threads: int | None) -> None:
    library = pytest.importorskip(name)
    kind = library.XGBClassifier if name == "xgboost" else library.LGBMClassifier
    model = kind(n_estimators=5, n_jobs=threads).fit(FRAME, TWO)
    files = {"model.pkl": pickle.dumps(model)}
    found = inspected(client, files)

    prediction = served(client, files, {str(n): FRAME[n].to_numpy() for n in FRAME}, found, probabilities=True)

    assert (found.format, found.type_name) == ("sklearn", kind.__name__)
    np.testing.assert_allclose(prediction.probabilities, model.predict_proba(FRAME), atol=1e-6)  # type: ignore[arg-type]


def test_columns_that_the_file_cannot_encode_are_refused(client: HostClient, lightgbm: Any, written: Any) -> None:
    frame = FRAME.assign(city=pd.Categorical(RANDOM.choice(["rome", "oslo"], len(FRAME))))
    model = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(frame, TWO)

    assert rejection(client, written(model.booster_, "model.txt")).code == "unsupported_feature"


def test_labels_that_are_not_its_classes_are_refused(client: HostClient, xgboost: Any, written: Any) -> None:
    model = xgboost.XGBClassifier(n_estimators=2).fit(ROWS, THREE)

    assert rejection(client, written(model, "model.json"), labels=["a", "b"]).code == "labels_mismatch"


def test_a_library_that_is_not_installed_is_named_with_its_extra() -> None:
    with pytest.raises(ArtifactRejected, match="'boosting'"):
        boosters.library("catboost_that_nobody_installed")
