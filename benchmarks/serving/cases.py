"""What is asked: models fitted here, and bodies of one row and of 64."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

TREES = 100


@dataclass(frozen=True)
class Case:
    """One question to one model.

    rows: (n, n_features) float64. expected: the class that scikit-learn itself predicts for each row.
    """

    name: str
    model: str
    rows: np.ndarray
    expected: tuple[int, ...]


def fitted() -> dict[str, Any]:
    """The models by name, each fitted on a data set that ships with scikit-learn."""
    iris, iris_classes = load_iris(return_X_y=True)
    cells, cell_classes = load_breast_cancer(return_X_y=True)
    return {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(iris, iris_classes),
        "forest": RandomForestClassifier(n_estimators=TREES, n_jobs=1, random_state=0).fit(cells, cell_classes),
    }


def write_models(folder: Path) -> tuple[Case, ...]:
    """The cases, their models written to `folder` as `NAME.pkl` and `NAME.onnx`."""
    from skl2onnx import to_onnx

    models = fitted()
    iris, cells = load_iris().data, load_breast_cancer().data
    for name, rows in (("logistic", iris), ("forest", cells)):
        folder.joinpath(f"{name}.pkl").write_bytes(pickle.dumps(models[name]))
        compiled = to_onnx(models[name], rows[:1], options={"zipmap": False})
        folder.joinpath(f"{name}.onnx").write_bytes(compiled.SerializeToString())
    return (
        _case("logistic, 1 row", "logistic", models["logistic"], iris[100:101]),
        _case("forest, 1 row", "forest", models["forest"], cells[42:43]),
        _case("forest, 64 rows", "forest", models["forest"], cells[:64]),
    )


def _case(name: str, model_name: str, model: Any, rows: np.ndarray) -> Case:
    return Case(name, model_name, rows, tuple(int(value) for value in model.predict(rows)))
