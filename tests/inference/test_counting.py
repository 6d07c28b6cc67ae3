"""What Prometheus is told of predictions is right, whoever counted, and waits while Valkey is away."""

import threading
from typing import Any

import pytest
import redis
from prometheus_client import CollectorRegistry

from inference import counting
from inference.counting import Counts, PredictionsCollector, Series
from inference.queued.valkey import valkey

ROWS = [[2.0, 0, 0, 0], [-2.0, 0, 0, 0]]


@pytest.fixture(autouse=True)
def _from_nothing(acme: Any) -> None:
    counting.counts.add_up()
    valkey().delete(counting._key(acme.schema_name))


def told(name: str, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(PredictionsCollector())
    return registry.get_sample_value(name, labels)


def test_predictions_are_counted_with_their_rows_and_what_became_of_them(
    acme: Any, serving: Any, client_for: Any
) -> None:
    client = client_for(acme, "predict")
    for body in ({"instances": ROWS}, {"instances": ROWS[:1]}, {"instances": [[1e308] * 4]}):
        client.post_json("api/v1/models/churn/predict", body)
    counting.counts.add_up()

    names = {"tenant": "acme", "model": "churn", "lane": "direct"}
    assert told("tenantry_predictions_total", **names, status="200") == 3
    assert told("tenantry_predicted_rows_total", **names) == 4
    assert told("tenantry_prediction_seconds_count", **names) == 3
    assert told("tenantry_prediction_seconds_bucket", **names, le="+Inf") == 3
    assert 0 < (told("tenantry_prediction_seconds_sum", **names) or 0) < 30


def test_what_fails_is_counted_by_its_status(acme: Any, serving: Any, client_for: Any) -> None:
    acme.lane = "queue"
    acme.save()
    client_for(acme, "predict").post_json("api/v1/models/churn/predict", {"instances": ROWS, "deadline_ms": 50})
    counting.counts.add_up()

    names = {"tenant": "acme", "model": "churn", "lane": "queue"}
    assert told("tenantry_predictions_total", **names, status="504") == 1
    assert told("tenantry_predicted_rows_total", **names) is None


def test_processes_and_threads_add_to_one_sum(acme: Any) -> None:
    series = Series(acme.schema_name, "churn", "direct", 200)
    processes = [Counts(), Counts()]

    def count(counts: Counts) -> None:
        for _ in range(500):
            counts.note(series, 2, 0.004)

    threads = [threading.Thread(target=count, args=(counts,)) for counts in processes * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for counts in processes:
        counts.add_up()

    names = {"tenant": "acme", "model": "churn", "lane": "direct"}
    assert told("tenantry_predicted_rows_total", **names) == 4000
    assert told("tenantry_prediction_seconds_bucket", **names, le="0.0025") == 0
    assert told("tenantry_prediction_seconds_bucket", **names, le="0.005") == 2000


def test_counts_wait_for_valkey_within_bounds(acme: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MOST_COUNTED", 3)
    counts = Counts()

    def away(*_: Any) -> None:
        raise redis.ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(counting, "_add", away)
        for number in range(5):
            counts.note(Series(acme.schema_name, f"m{number}", "direct", 200), 1, 0.1)
            with pytest.raises(redis.ConnectionError):
                counts.add_up()
    counts.add_up()
    names = {"tenant": "acme", "lane": "direct"}
    assert [told("tenantry_predicted_rows_total", **names, model=f"m{number}") for number in range(5)] == [
        None,
        None,
        1,
        1,
        1,
    ]
