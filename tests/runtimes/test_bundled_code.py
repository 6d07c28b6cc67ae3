"""Code that travels with a model: found by every kind of pickle, in its runner alone."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import cloudpickle
import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from runtimes.client import HostClient
from runtimes.errors import ModelError, describe
from tests.runtimes.bundles import inspected, rejection, served
from tests.runtimes.test_folders import zipped

ROWS = np.random.default_rng(4).normal(size=(40, 3))
TARGET = (ROWS[:, 0] > 0).astype(int)
CHURNLIB = b"""
from sklearn.base import BaseEstimator, TransformerMixin

class Doubler(TransformerMixin, BaseEstimator):
    def fit(self, rows, target=None):
        self.n_features_in_ = rows.shape[1]
        return self

    def transform(self, rows):
        return rows * 2

    def __sklearn_is_fitted__(self):
        return True
"""
TOTAL = b"""
class Total:
    n_features_in_ = 3

    def predict(self, rows):
        return rows.sum(axis=1)
"""


@pytest.fixture
def authors() -> Iterator[Callable[..., ModuleType]]:
    """`authors("churnlib", source)`: a module of an author's, as it was importable at home; forgotten afterwards."""
    before = set(sys.modules)

    def make(name: str, source: bytes) -> ModuleType:
        module = ModuleType(name)
        sys.modules[name] = module
        exec(source, module.__dict__)
        return module

    yield make
    for name in set(sys.modules) - before:
        del sys.modules[name]


def joblib_dumps(model: Any) -> bytes:
    file = io.BytesIO()
    joblib.dump(model, file, compress=3)
    return file.getvalue()


@pytest.mark.parametrize("write", [pickle.dumps, cloudpickle.dumps, joblib_dumps], ids=["pickle", "cloud", "joblib"])
@pytest.mark.parametrize(
    "path", ["churnlib.py", "code/churnlib.py", "code/churnlib/__init__.py", "churnlib/__init__.py"]
)
def test_a_pickle_finds_its_authors_module(client: HostClient, authors: Any, write: Any, path: str) -> None:
    doubler = authors("churnlib", CHURNLIB).Doubler()
    model = make_pipeline(doubler, LogisticRegression()).fit(ROWS, TARGET)
    files = {"model.pkl": write(model), path: CHURNLIB}

    found = inspected(client, files)
    prediction = served(client, files, ROWS, found, probabilities=True)

    assert (found.format, found.type_name) == ("sklearn", "LogisticRegression")
    np.testing.assert_allclose(prediction.probabilities, model.predict_proba(ROWS))  # type: ignore[arg-type]


def test_a_zipped_upload_brings_its_code_too(client: HostClient, authors: Any) -> None:
    model = pickle.dumps(authors("totals", TOTAL).Total())
    files = {"upload.zip": zipped({"model.pkl": model, "code/totals.py": TOTAL})}
    found = inspected(client, files)

    assert served(client, files, np.ones((2, 3)), found).outputs["prediction"].tolist() == [3.0, 3.0]


def test_modules_import_each_other_and_read_their_data(client: HostClient, authors: Any) -> None:
    module = authors("churnlib", b"class Model:\n    n_features_in_ = 1\n    predict = None\n")
    source = b"""
import importlib.resources, json, os, pkgutil
from . import weights
from .inner.scales import SCALE
import shared

class Model:
    n_features_in_ = 1

    def predict(self, rows):
        here = os.path.dirname(__file__)
        with open(os.path.join(here, "factor.json")) as file:
            factor = json.load(file)
        assert os.path.exists(os.path.join(here, "factor.json"))
        assert sorted(os.listdir(here)) == ["__init__.py", "factor.json", "inner", "weights.py"]
        assert pkgutil.get_data(__name__, "factor.json") == b"5"
        return rows[:, 0] * weights.WEIGHT * SCALE * shared.PART * factor
"""
    files = {
        "model.pkl": pickle.dumps(module.Model()),
        "code/churnlib/__init__.py": source,
        "code/churnlib/weights.py": b"WEIGHT = 2",
        "code/churnlib/inner/scales.py": b"SCALE = 3",  # a namespace package
        "code/churnlib/factor.json": b"5",
        "shared.py": b"PART = 7",
    }

    found = inspected(client, files)

    assert served(client, files, np.ones((1, 1)), found).outputs["prediction"].tolist() == [210.0]


def test_a_notebooks_class_is_found_in_model_py(client: HostClient) -> None:
    files = {"model.pkl": b"c__main__\nTotal\n)\x81.", "model.py": TOTAL}
    found = inspected(client, files)

    assert (found.type_name, found.signature.inputs[0].shape) == ("Total", (-1, 3))


@pytest.mark.parametrize(
    ("pickled", "told"),
    [
        (b"cchurnlib.models\nModel\n.", "module 'churnlib'"),
        (b"cnumpy.churn\nModel\n.", "module 'numpy.churn'"),
        (b"cchurnlib.models\nModel\n.", "upload churnlib.py beside the model, or its package in a folder code/"),
        (b"c__main__\nTheirModel\n.", "put it into model.py"),
    ],
)
def test_what_is_missing_is_named_with_the_way_to_add_it(client: HostClient, pickled: bytes, told: str) -> None:
    rejected = rejection(client, {"model.pkl": pickled})

    assert rejected.code == "missing_module"
    assert told in rejected.reason


def test_a_module_that_needs_another_names_that_one(client: HostClient) -> None:
    rejected = rejection(client, {"model.pkl": b"cchurnlib\nModel\n.", "churnlib.py": b"import featuretools\n"})

    assert (rejected.code, "'featuretools'" in rejected.reason) == ("missing_module", True)


def test_an_error_names_the_line_of_the_code(client: HostClient) -> None:
    source = TOTAL.replace(b"return rows.sum(axis=1)", b"return 1 / 0")
    rejected = rejection(client, {"model.pkl": b"clib\nTotal\n)\x81.", "code/lib.py": source})

    assert "ZeroDivisionError: division by zero, at code/lib.py:6" in rejected.reason


def test_an_error_of_a_served_model_names_the_line_too(client: HostClient) -> None:
    source = TOTAL.replace(b"return rows", b"rows[0, 0] > 8 and 1 / 0; return rows")
    files = {"model.pkl": b"clib\nTotal\n)\x81.", "code/lib.py": source}
    found = inspected(client, files)

    with pytest.raises(ModelError, match=r"ZeroDivisionError.*at code/lib\.py:6"):
        served(client, files, np.full((1, 3), 9.0), found)


SHADOWS: Mapping[str, bytes] = {
    f"code/{name}.py": b"raise RuntimeError('shadowed')"
    for name in ("json", "io", "os", "re", "numpy", "sklearn", "msgpack", "runtimes", "model", "linecache", "select")
}


def test_code_cannot_stand_in_for_what_the_runner_needs(client: HostClient) -> None:
    """Neither the standard library nor what is loaded already is looked for in the bundle."""
    model = LogisticRegression().fit(ROWS, TARGET)
    files = {"model.pkl": pickle.dumps(model), **SHADOWS, "code/runtimes/serving.py": b"raise RuntimeError"}
    found = inspected(client, files)

    prediction = served(client, files, ROWS, found)

    assert prediction.outputs["prediction"].tolist() == model.predict(ROWS).tolist()


def test_code_is_one_models_alone(client: HostClient, authors: Any) -> None:
    pickled = pickle.dumps(authors("totals", TOTAL).Total())
    inspected(client, {"model.pkl": pickled, "totals.py": TOTAL})

    assert rejection(client, {"model.pkl": pickled}).code == "missing_module"


def test_a_bundles_file_can_be_read_and_not_written(client: HostClient) -> None:
    source = b"""
class Total:
    n_features_in_ = 3

    def predict(self, rows):
        try:
            open("words.txt", "a")
        except PermissionError:
            with open("words.txt", encoding="utf-8") as words, open("/words.txt", "rb") as same:
                assert words.read().encode() == same.read()
                return [len(line) for line in open("words.txt")] * len(rows)
"""
    files = {"model.pkl": b"clib\nTotal\n)\x81.", "lib.py": source, "words.txt": "Käse".encode()}
    found = inspected(client, files)

    assert served(client, files, np.ones((1, 3)), found).outputs["prediction"].tolist() == [4]


@pytest.mark.parametrize("source", [b"\xff\xfe", b"def (", b"import lib", b"raise SystemExit", b"x = '" + b"a" * 99])
def test_code_that_cannot_be_imported_is_a_named_error(client: HostClient, source: bytes) -> None:
    rejection(client, {"model.pkl": b"clib\nTotal\n)\x81.", "lib.py": source})


def test_a_traceback_of_an_artifacts_own_is_not_followed() -> None:
    class Endless(Exception):
        @property
        def __traceback__(self) -> Any:  # type: ignore[override]
            raise SystemExit

    assert describe(Endless("x")) == "Endless: x"
