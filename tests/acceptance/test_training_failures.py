"""What goes wrong in training, with real workers: it ends soon, says why, and holds nobody else up.

A worker that is killed once is in test_training.py.
"""

import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests

from clients.demo.platform import TIMEOUT_S, Operator
from tests.acceptance.stack import ROOT, Stack, eventually
from tests.acceptance.test_switch_under_load import database

sys.path.insert(0, str(ROOT / "clients" / "python" / "src"))  # a project of its own, which nobody has to install here
from tenantry_client import RunFailed, Tenant, TenantryError

ENDS_WITHIN_S = 30.0
SOON_S = 2.0
LENGTH_S = 0.5
QUEUED = 40
TABLE = pd.DataFrame({"a": range(60), "b": [row % 7 for row in range(60)], "y": [row % 2 for row in range(60)]})
QUIETLY = {"shows_progress": False}
SLEEPING = """
import time
from sklearn.dummy import DummyClassifier

def train(data, target, params, report):
    report(1, "asleep")
    time.sleep(params["seconds"])
    return DummyClassifier().fit(data[["a", "b"]], data[target])
"""


@dataclass(frozen=True)
class Place:
    """A tenant with the table `t`, and a folder for its programs."""

    operator: Operator
    name: str
    url: str
    client: Tenant
    session: requests.Session
    folder: Path

    def run(self, program: str, **asked: Any) -> Any:
        """A run of a program that has begun."""
        file = self.folder / "train.py"
        file.write_text(program)
        return self.client.runs.start_program(file, "t", "y", "m", **asked)

    def sleep(self, seconds: float) -> Any:
        """A run that takes so long and does nothing."""
        return self.run(SLEEPING, params={"seconds": seconds})

    @contextmanager
    def may(self, **quotas: int) -> Iterator[None]:
        """The tenant with other quotas, for the block."""
        before = self._change({"quotas": quotas})
        try:
            yield
        finally:
            self._change({"quotas": {name: before["quotas"][name] for name in quotas}})

    def suspend(self) -> None:
        """Leave what it has queued where it is."""
        self._change({"state": "suspended"})

    def _change(self, changes: dict[str, Any]) -> dict[str, Any]:
        session, url = self.operator.session, f"{self.operator.url}/api/v1/tenants/{self.name}"
        headers = {"Referer": self.operator.url, "X-CSRFToken": session.cookies["csrftoken"]}
        before: dict[str, Any] = session.get(url, timeout=TIMEOUT_S).json()
        answer = session.patch(url, json=changes, headers=headers, timeout=TIMEOUT_S)
        assert answer.ok, answer.text
        return before


def new_place(stack: Stack, folder: Path) -> Place:
    made = stack.tenant()
    client = Tenant(made.base_url, made.token)
    client.datasets.upload(TABLE, "t")
    return Place(stack.operator(), made.tenant_id, made.base_url, client, made.session, folder)


@pytest.fixture(scope="module")
def place(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return new_place(stack, tmp_path_factory.mktemp("programs"))


def ended(run: Any, state: str) -> dict[str, Any]:
    """The run, which has ended so."""
    eventually(lambda: run.refresh(5).state not in ("queued", "running"), ENDS_WITHIN_S, "the run ends")
    assert run.state == state, run.body
    found: dict[str, Any] = run.body
    return found


def asleep(run: Any) -> Any:
    return eventually(lambda: run.refresh().body["progress"]["stage"] == "asleep", ENDS_WITHIN_S, "it is under way")


def at(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def test_a_malformed_table_is_refused_by_its_place(place: Place) -> None:
    with pytest.raises(TenantryError, match="line 3: the row has 1 cell"):
        place.client.datasets.upload(io.BytesIO(b"a,b\n1,2\n3\n"), "bad")
    with pytest.raises(TenantryError, match="line 2: column 7 is no JSON"):
        place.client.datasets.upload(io.BytesIO(b'{"a": 1}\n{"a": }\n'), "bad")
    with pytest.raises(RunFailed, match="Parquet"):  # a worker's runner has read it
        place.client.datasets.upload(io.BytesIO(b"PAR1" + bytes(100) + b"PAR1"), "bad")


def test_a_program_that_fails_is_told_by_its_line_and_not_tried_again(place: Place) -> None:
    raising = place.run("def train(data, target, params, report):\n    raise ValueError('no luck')\n")
    reaching = place.run("def train(data, target, params, report):\n    open('/etc/passwd')\n")
    for run, told in ((raising, "no luck"), (reaching, "PermissionError")):
        body = ended(run, "failed")
        assert body["attempts"] == 1
        assert body["error"]["message"].startswith("The model could not be fitted: train.py, line 2:"), body["error"]
        assert told in body["error"]["message"]


def test_a_run_over_a_budget_fails_with_the_reason_and_is_not_tried_again(place: Place) -> None:
    with place.may(max_run_seconds=1):
        too_long = ended(place.sleep(60), "failed")
    with place.may(max_run_cpu_seconds=1):
        too_busy = ended(place.run("def train(*_):\n    while True:\n        pass\n"), "failed")
    with place.may(max_run_memory_bytes=1 << 30):
        too_large = ended(place.run("def train(*_):\n    return bytes(3 << 30)\n"), "failed")
    for body, code, told in (
        (too_long, "fit_too_long", "longer than its 1 seconds"),
        (too_busy, "fit_too_long", "more CPU time than its budget"),
        (too_large, "fit_memory", "more memory than its budget"),
    ):
        assert (body["error"]["code"], body["attempts"]) == (code, 1)
        assert told in body["error"]["message"]


def test_a_full_tenant_is_told_what_is_left_and_a_cancelled_run_makes_room_at_once(place: Place) -> None:
    with place.may(max_open_runs=2, max_dataset_bytes=1_000):
        first, second = place.sleep(60), place.sleep(0)
        asleep(first)
        with pytest.raises(TenantryError, match=r"so 0 are left.*429 too_many_open_runs"):
            place.sleep(0)
        with pytest.raises(TenantryError, match=r"bytes, .* are left; .*403 quota_exceeded"):
            place.client.datasets.upload(pd.concat([TABLE] * 9), "t")
        assert first.cancel().state == "cancelled"
        body = ended(second, "succeeded")
    assert at(body["started_at"]) - at(first.body["finished_at"]) < SOON_S


def test_a_cancelled_search_ends_all_its_trials_at_once(place: Place) -> None:
    search = place.client.searches.start(
        "random_forest_classifier", "t", "y", "m", {"seed": list(range(8))},
        method="grid", metric="accuracy", params={"n_estimators": 5_000},
    )  # fmt: skip
    eventually(lambda: running(search), ENDS_WITHIN_S, "a trial is under way")
    probe = place.sleep(0)
    search.cancel()
    assert {trial["state"] for trial in search.body["trials"]} == {"cancelled"}
    body = ended(probe, "succeeded")
    assert at(body["started_at"]) - at(search.body["finished_at"]) < SOON_S


def running(search: Any) -> bool:
    return any(trial["state"] == "running" for trial in search.refresh().body["trials"])


def test_a_search_fails_with_the_reason_where_no_trial_succeeds(place: Place) -> None:
    place.client.datasets.upload(TABLE.assign(y=1), "constant")
    search = place.client.searches.start(
        "logistic_regression", "constant", "y", "m", {"C": [0.1, 1.0]}, method="grid", metric="accuracy"
    )
    assert ended(search, "failed")["error"]["code"] == "no_trial_succeeded"
    assert {trial["state"] for trial in search.body["trials"]} == {"failed"}
    assert "one class" in search.body["trials"][0]["error"]


def test_what_does_not_fit_a_version_fails_its_evaluation_and_a_used_table_is_kept(place: Place) -> None:
    run = place.client.runs.start("logistic_regression", "t", "y", "fits").wait(**QUIETLY)
    place.client.datasets.upload(TABLE.drop(columns="b"), "narrow")
    version = place.client.models["fits"].version(run.version).wait_until_ready()
    assert "'b'" in ended(version.evaluate("narrow", "y"), "failed")["error"]["message"]
    refused = place.session.delete(f"{place.url}/api/v1/datasets/t", timeout=TIMEOUT_S)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "in_use")


def test_a_single_run_waits_for_one_run_of_a_tenant_with_many(place: Place, stack: Stack, tmp_path: Path) -> None:
    busy = new_place(stack, tmp_path)
    with busy.may(max_open_runs=QUEUED):
        for _ in range(QUEUED):
            busy.run(f"import time\ndef train(*_):\n    time.sleep({LENGTH_S})\n    raise ValueError('enough')\n")
        single = place.sleep(0)
        body = ended(single, "succeeded")
        waited_s = at(body["started_at"]) - at(body["created_at"])
        left = sum(run.state == "queued" for run in busy.client.runs.list(state="queued", limit=QUEUED))
    busy.suspend()
    assert left > QUEUED / 2
    assert waited_s < LENGTH_S + SOON_S


def test_a_run_whose_last_worker_is_lost_fails_with_the_reason(place: Place, stack: Stack) -> None:
    run = place.sleep(60)
    asleep(run)
    with database(stack) as cursor:  # two workers were lost before, as far as the platform knows
        cursor.execute("UPDATE tenants_job SET attempts = max_attempts WHERE id = %s", [run.id])
        stack.kill("celery", "training@")
        cursor.execute("UPDATE tenants_job SET lease_until = now() WHERE id = %s", [run.id])
    body = ended(run, "failed")
    assert (body["error"]["code"], body["version"]) == ("worker_lost", None)
    started = time.monotonic()
    ended(place.sleep(0), "succeeded")
    assert time.monotonic() - started < ENDS_WITHIN_S
