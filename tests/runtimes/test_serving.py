"""From a pickle to predictions through the model host."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

from runtimes.client import HostClient
from tests.runtimes.conftest import Load, bundle_of


def test_an_inspection_finds_the_signature(any_client: HostClient, classifier: Any) -> None:
    stages: list[str] = []

    found = any_client.inspect(bundle_of(pickle.dumps(classifier)), tenant="acme", metadata={}, on_stage=stages.append)

    assert (found.format, found.task, found.type_name) == ("sklearn", "classification", "LogisticRegression")
    assert found.signature.inputs[0].shape == (-1, 4)
    assert found.signature.classes == (0, 1, 2)
    assert stages == ["recognising", "reading", "loading", "predicting a sample"]


def test_predictions_equal_the_models_own(
    any_client: HostClient, classifier: Any, iris_like: tuple[np.ndarray, np.ndarray], load_request: Load
) -> None:
    rows, _ = iris_like
    runner = any_client.runner("equal", load_request(classifier))

    prediction = runner.predict(rows, probabilities=True, deadline_s=10)

    np.testing.assert_array_equal(prediction.outputs["prediction"], classifier.predict(rows))
    assert prediction.probabilities is not None
    np.testing.assert_allclose(prediction.probabilities, classifier.predict_proba(rows), atol=1e-12)
