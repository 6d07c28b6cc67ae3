"""Requests that wait together are predicted together, and each gets its own rows."""

from __future__ import annotations

from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.pipeline import Pipeline

from runtimes import arrays, batching
from runtimes.client import HostClient, Question
from runtimes.errors import ModelError
from runtimes.protocol import Prediction
from runtimes.signature import Batch
from tests.runtimes.conftest import Load

SIGNATURE = {"layout": "tensor", "inputs": [{"name": "x", "dtype": "float64", "shape": [-1, 2]}], "outputs": []}
TELLING = """
import time
from sklearn.base import BaseEstimator

class Telling(BaseEstimator):
    n_features_in_ = 2

    def fit(self, rows, labels=None):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def predict(self, rows):
        time.sleep(0.5)
        return [len(rows)] * len(rows)
"""


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_what_was_joined_is_split_as_it_was(sizes: list[int]) -> None:
    values = np.arange(sum(sizes) * 2.0).reshape(-1, 2)
    batches = np.split(values, np.cumsum(sizes)[:-1])

    joined = np.asarray(batching.join(batches))
    parts = batching.split(Prediction({"y": joined}, joined), sizes)

    for batch, part in zip(batches, parts, strict=True):
        np.testing.assert_array_equal(part.outputs["y"], batch)
        np.testing.assert_array_equal(part.probabilities, batch)


def test_columns_are_joined_by_name() -> None:
    first = {"a": np.array([1.0]), "b": np.array(["x"], dtype=object)}
    second = {"a": np.array([2.0]), "b": np.array([None], dtype=object)}

    joined = batching.join([first, second])

    assert isinstance(joined, dict)
    assert (joined["a"].tolist(), joined["b"].tolist()) == ([1.0, 2.0], ["x", None])


def test_batches_of_different_kinds_stay_apart() -> None:
    wide, narrow = np.zeros((1, 3)), np.zeros((1, 2))

    assert _kind_of(wide) == _kind_of(np.ones((2, 3)))
    assert _kind_of(wide) != _kind_of(narrow)
    assert _kind_of(wide) != _kind_of(wide.astype("float32"))
    assert _kind_of({"a": np.zeros(1)}) != _kind_of({"b": np.zeros(1)})


def _kind_of(batch: Batch) -> Hashable:
    header, buffers = arrays.encode_batch(batch)
    return arrays.plan_batch(header, sum(buffer.nbytes for buffer in buffers), max_rows=10).kind


def test_a_prediction_of_the_wrong_length_is_not_split() -> None:
    with pytest.raises(batching.Unsplittable):
        batching.split(Prediction({"y": np.zeros(3)}), [1, 1])


def test_many_threads_each_get_their_own_rows(
    client: HostClient, classifier: Any, iris_like: tuple[np.ndarray, np.ndarray], load_request: Load
) -> None:
    rows, _ = iris_like
    runner = client.runner("crowd", load_request(classifier))
    expected = classifier.predict_proba(rows)

    def ask(start: int) -> None:
        if start % 7 == 0:
            with pytest.raises(ModelError):
                runner.predict(rows[:1, :3], deadline_s=30)
        part = slice(start, start + 1 + start % 4)
        prediction = runner.predict(rows[part], probabilities=True, deadline_s=30)
        np.testing.assert_allclose(prediction.probabilities, expected[part], atol=1e-12)  # type: ignore[arg-type]

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, list(range(80)) * 3))


def test_requests_that_wait_are_predicted_as_one_batch(client: HostClient, load_request: Load) -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(TELLING, space)
    pipeline = cloudpickle.dumps(Pipeline([("telling", space["Telling"]())]))  # scikit-learn's own may be batched
    runner = client.runner("drained", load_request(pipeline, signature=SIGNATURE))

    def ask(number: int) -> int:
        return int(runner.predict(np.zeros((1, 2)), deadline_s=30).outputs["prediction"][0])

    with ThreadPoolExecutor(32) as threads:
        sizes = list(threads.map(ask, range(32)))

    assert max(sizes) >= 16


def test_questions_that_leave_together_get_their_own_answers(
    client: HostClient, classifier: Any, iris_like: tuple[np.ndarray, np.ndarray], load_request: Load
) -> None:
    rows, _ = iris_like
    runner = client.runner("together", load_request(classifier))
    wide = np.tile(rows, (30, 1))  # more than a socket takes without a reader
    batches = [rows[:1], rows[1:4], wide, rows[4:5]]

    answers = runner.predict_together([Question(batch) for batch in batches], deadline_s=10)

    for batch, answer in zip(batches, answers, strict=True):
        assert isinstance(answer, Prediction)
        np.testing.assert_array_equal(answer.outputs["prediction"], classifier.predict(batch))


def test_a_question_that_the_model_raises_on_leaves_the_others_their_answers(
    client: HostClient, classifier: Any, iris_like: tuple[np.ndarray, np.ndarray], load_request: Load
) -> None:
    rows, _ = iris_like
    runner = client.runner("together", load_request(classifier))
    questions = [Question(rows[:1]), Question(rows[:1, :2]), Question(rows[1:2], probabilities=True)]

    first, second, third = runner.predict_together(questions, deadline_s=10)

    assert isinstance(second, ModelError)
    assert isinstance(first, Prediction)
    assert isinstance(third, Prediction)
    assert third.probabilities is not None
