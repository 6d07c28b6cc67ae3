"""What happens when a part of the platform dies: the right answer after a bounded retry, or a clear 503; no lost job.

The tests share a stack and kill its parts one after the other, which is what a bad night looks like, too.
"""

import csv
import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from clients.demo.platform import Tenant
from runtimes.client import HostClient
from tests.acceptance.stack import DISK_BYTES, LONGEST_PREDICTION_S, Stack, eventually
from tests.runtimes.payloads import predicting

RECOVERY_S = 60.0
BATCH_ROWS = 24_000
SPARE_BYTES = 64 << 20
# It doubles the first column, and takes as many seconds as the second one says.
DOUBLING = "import time; time.sleep(min(max(float(rows[:, 1].max()), 0.0), 5.0)); return (2 * rows[:, 0]).tolist()"


@pytest.fixture(scope="module")
def tenants(stack: Stack) -> dict[str, Tenant]:
    """Two tenants with the model `m`: the predictions of one take the direct lane, those of the other the queue."""

    def make(lane: str) -> Tenant:
        tenant = stack.tenant()
        tenant.session.patch(f"{tenant.base_url}/api/v1/settings", json={"lane": lane}).raise_for_status()
        serve(tenant, "m", predicting(DOUBLING))
        return tenant

    with ThreadPoolExecutor(2) as threads:
        return dict(zip(("direct", "queue"), threads.map(make, ("direct", "queue")), strict=True))


@pytest.fixture(scope="module")
def direct(tenants: dict[str, Tenant]) -> Tenant:
    return tenants["direct"]


@pytest.fixture(scope="module")
def queued(tenants: dict[str, Tenant]) -> Tenant:
    return tenants["queue"]


@pytest.fixture(scope="module", autouse=True)
def interrupted_batch(stack: Stack, direct: Tenant) -> str:
    """A batch job whose worker was killed in its midst. It waits for the end of that one's lease, through all that
    the other tests do to the platform; the last test looks what became of it."""
    table = "x,seconds\n" + "".join(f"{row},{0.5 if row % 2000 == 0 else 0}\n" for row in range(BATCH_ROWS))
    batch = direct.upload("batch-jobs", {"numbers.csv": table.encode()}, model="m")
    eventually(lambda: direct.get(f"batch-jobs/{batch['id']}")["rows"] > 0, RECOVERY_S, "some chunks are done")
    kill(stack, "celery", "worker", "batch")
    assert 0 < direct.get(f"batch-jobs/{batch['id']}")["rows"] < BATCH_ROWS
    return str(batch["id"])


class Later:
    """Predictions that were asked for with `async` while something was about to die: the last test looks for them."""

    def __init__(self) -> None:
        self.asked: list[tuple[Tenant, str, float]] = []

    def __call__(self, tenant: Tenant, number: float) -> None:
        accepted = tenant.post("models/m/predict", {"instances": [[number, 0.5]], "async": True})
        self.asked.append((tenant, accepted["id"], 2 * number))


@pytest.fixture(scope="module")
def later() -> Later:
    return Later()


def test_a_runner_killed_in_mid_request_is_replaced_and_the_request_answered(stack: Stack, direct: Tenant) -> None:
    assert ask(direct, 1).is_right
    with asking(direct, 21, seconds=1.5) as answer:
        kill_runners(stack)
        assert answer.result().is_right, answer.result()


def test_a_model_host_killed_in_mid_request_fails_nobody_for_long(stack: Stack, direct: Tenant) -> None:
    with hammering(direct) as outcomes, asking(direct, 22, seconds=1.5) as answer:
        kill(stack, "runtimes.host")
        assert answer.result().is_right_or_unavailable, answer.result()
        eventually(lambda: ask(direct, 3).is_right, RECOVERY_S, "the model answers after its host was killed")
    assert_bearable(outcomes)


def test_messages_in_a_killed_workers_hand_are_answered_by_the_next(stack: Stack, queued: Tenant) -> None:
    assert ask(queued, 1).is_right
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(ask, queued, number, 1.0) for number in range(4)]
        time.sleep(0.5)  # for the worker to have them in hand; that it has does not show outside
        kill(stack, "celery", "worker", "inference")
        assert [answer.result().is_right for answer in answers] == [True] * 4, [one.result() for one in answers]


def test_a_restarted_valkey_costs_some_answers(stack: Stack, queued: Tenant, later: Later) -> None:
    later(queued, 4)
    with hammering(queued) as outcomes:
        kill(stack, "valkey-server")
        eventually(lambda: ask(queued, 5).is_right, RECOVERY_S, "the queue works after Valkey was killed")
    assert_bearable(outcomes)


def test_a_restarted_postgresql_costs_some_answers(stack: Stack, direct: Tenant, later: Later) -> None:
    later(direct, 6)
    with hammering(direct) as outcomes:
        kill(stack, "postgres", "-D")
        eventually(lambda: reads(direct), RECOVERY_S, "PostgreSQL is back")
        eventually(lambda: ask(direct, 7).is_right, RECOVERY_S, "predictions go on after PostgreSQL was killed")
    assert_bearable(outcomes)


def test_a_full_disk_refuses_what_is_not_there_alone_and_says_so(
    stack: Stack, cache: Path, direct: Tenant, queued: Tenant
) -> None:
    if not os.path.ismount(cache):
        pytest.skip("needs root, to mount a small disk")
    for pack in cache.glob("*/*.pack"):
        pack.unlink()
    host(stack).clear()  # as on a machine that has served neither model
    eventually(lambda: ask(direct, 1).is_right, RECOVERY_S, "the first model is loaded")
    filler = cache / "filler"
    filler.write_bytes(bytes(DISK_BYTES - SPARE_BYTES))  # what is left is spared for everybody else
    refused = ask(queued, 1)
    assert (refused.status, refused.code) == (503, "disk_full"), refused
    assert refused.retry_after
    assert ask(direct, 1).is_right
    filler.unlink()
    eventually(lambda: ask(queued, 9).is_right, RECOVERY_S, "the second model answers once there is room")


def test_no_prediction_for_later_was_lost(later: Later) -> None:
    for tenant, prediction_id, expected in later.asked:
        ended = eventually(partial(ended_job, tenant, prediction_id), 2 * RECOVERY_S, "the prediction is made")
        assert ended["answer"]["predictions"] == [expected], ended


def test_a_batch_job_survived_all_of_it(direct: Tenant, interrupted_batch: str) -> None:
    batch = eventually(
        lambda: (job := direct.get(f"batch-jobs/{interrupted_batch}"))["state"] not in ("queued", "running") and job,
        120,
        "the interrupted batch job ends",
    )
    assert (batch["state"], batch["rows"], batch["failed_rows"]) == ("succeeded", BATCH_ROWS, 0), batch
    answer = direct.session.get(f"{direct.base_url}/api/v1/batch-jobs/{interrupted_batch}/result", timeout=60)
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [int(row["x"]) for row in rows] == list(range(BATCH_ROWS))
    assert all(float(row["prediction"]) == 2 * int(row["x"]) for row in rows)


# --- asking ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What a request came to. is_known: the answer was the one that belongs to the question."""

    status: int
    is_known: bool
    took_s: float
    retry_after: str | None = None
    code: str = ""

    @property
    def is_right(self) -> bool:
        return self.status == 200 and self.is_known

    @property
    def is_right_or_unavailable(self) -> bool:
        """Whether it is what a caller may meet while a part is being replaced."""
        refused = self.status in (429, 503) and self.retry_after is not None
        return (self.is_right or refused) and self.took_s < LONGEST_PREDICTION_S + 5


def ask(tenant: Tenant, number: float, seconds: float = 0.0, model: str = "m") -> Outcome:
    started = time.monotonic()
    url = f"{tenant.base_url}/api/v1/models/{model}/predict"
    headers = {"Authorization": f"Bearer {tenant.token}"}
    body = {"instances": [[number, seconds]]}
    answer = requests.post(url, json=body, headers=headers, timeout=LONGEST_PREDICTION_S + 30)
    content = answer.json()
    return Outcome(
        answer.status_code,
        content.get("predictions") == [2 * number],
        time.monotonic() - started,
        answer.headers.get("Retry-After"),
        content.get("error", {}).get("code", ""),
    )


@contextmanager
def asking(tenant: Tenant, number: float, seconds: float) -> Iterator[Future[Outcome]]:
    """A request that takes so many seconds, half a second old when the block begins."""
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(ask, tenant, number, seconds)
        time.sleep(0.5)
        assert not answer.done(), answer.result()
        yield answer


@contextmanager
def hammering(tenant: Tenant, callers: int = 4) -> Iterator[list[Outcome]]:
    """Requests without a pause during the block; what became of each."""
    outcomes: list[Outcome] = []
    is_over = threading.Event()

    def go_on(number: int) -> None:
        while not is_over.is_set():
            number += callers
            outcomes.append(ask(tenant, number))
            time.sleep(0.05)

    with ThreadPoolExecutor(callers) as pool:
        futures = [pool.submit(go_on, number) for number in range(callers)]
        try:
            yield outcomes
        finally:
            is_over.set()
    for future in futures:
        future.result()


def assert_bearable(outcomes: list[Outcome]) -> None:
    assert outcomes
    wrong = [outcome for outcome in outcomes if not outcome.is_right_or_unavailable]
    assert not wrong, wrong[:5]


def serve(tenant: Tenant, name: str, artifact: bytes) -> None:
    tenant.ensure_model(name, "")
    number = tenant.upload(f"models/{name}/versions", {f"{name}.pkl": artifact}, metadata={})["number"]
    version = tenant.inspected(name, number)
    assert version["state"] == "ready", version
    tenant.post(f"models/{name}/versions/{number}/activate")


def reads(tenant: Tenant) -> bool:
    """Whether the platform can read from its database."""
    answer = tenant.session.get(f"{tenant.base_url}/api/v1/models/m", timeout=30)
    assert answer.status_code in (200, 503), answer.text
    return answer.ok


def ended_job(tenant: Tenant, prediction_id: str) -> Any:
    """The prediction, if it has an answer; a platform that is coming back may refuse to say."""
    answer = tenant.session.get(f"{tenant.base_url}/api/v1/predictions/{prediction_id}", timeout=30)
    assert answer.status_code in (200, 503), answer.text
    return answer.json() if answer.ok and answer.json()["answer"] else None


# --- killing ---------------------------------------------------------------------------------------------------------


def kill(stack: Stack, *words: str) -> None:
    """Kill -9 the processes whose command line holds each of these words, of which there is one at least."""
    assert stack.processes(*words), words
    stack.kill(*words)


def kill_runners(stack: Stack) -> None:
    """Kill every process that holds a model."""
    for runner in host(stack).stats().runners:
        os.kill(runner["pid"], signal.SIGKILL)


def host(stack: Stack) -> HostClient:
    """The stack's model host."""
    lines = (stack.var / "stack.env").read_text().splitlines()
    socket = next(line.partition("=")[2] for line in lines if line.startswith("TENANTRY_MODELS_SOCKET="))
    return HostClient(socket.strip("'\""))
