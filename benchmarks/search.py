"""How much faster a search is with two training workers than with one: `python -m benchmarks.search`.

Starts a platform of its own, twice the same search of 16 equal trials, first with one worker process, then with two,
and prints both times and their ratio. Goal: at most 0.6, on a machine with two free cores.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from clients.demo.platform import Tenant
from tests.acceptance.stack import running_stack

TRIALS = 16
GOAL = 0.6


def table(rows: int) -> bytes:
    """A table whose target follows from two of its ten columns."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(rows, 10)), columns=[f"c{place}" for place in range(10)])
    frame["y"] = np.where(frame.c0 * frame.c1 > 0, "yes", "no")
    return frame.to_csv(index=False).encode()


def search(tenant: Tenant, trees: int, trials: int) -> float:
    """The seconds from the first trial's start to the last one's end; every trial fits the same forest."""
    space = {"seed": list(range(trials))}
    body = {
        "trainer": "random_forest_classifier", "dataset": "t", "target": "y", "model": "m", "method": "grid",
        "trials": trials, "space": space, "params": {"n_estimators": trees}, "metric": "accuracy", "prune": False,
    }  # fmt: skip
    found = tenant.post("searches", body)
    while (found := tenant.get(f"searches/{found['id']}", wait=30))["state"] in ("queued", "running"):
        pass
    assert found["state"] == "succeeded", found["error"]
    runs = [tenant.get(f"runs/{trial['id']}") for trial in found["trials"]]
    began = min(pd.Timestamp(run["started_at"]) for run in runs)
    return float((max(pd.Timestamp(run["finished_at"]) for run in runs) - began).total_seconds())


def measured(workers: int, rows: int, trees: int, trials: int) -> float:
    """The same with so many worker processes."""
    with tempfile.TemporaryDirectory(prefix="tenantry-search-") as folder:
        Path(folder).chmod(0o711)
        with running_stack(Path(folder), TRAINING_PROCESSES=str(workers)) as stack:
            tenant = stack.tenant()
            tenant.upload("datasets", {"t.csv": table(rows)}, name="t")
            search(tenant, 1, 2 * workers)  # warm: zygotes are started, and every module is imported
            return search(tenant, trees, trials)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Search with one and with two training workers.")
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--trees", type=int, default=150)
    parser.add_argument("--trials", type=int, default=TRIALS, help="fewer for a look whether it runs")
    options = parser.parse_args()
    started = time.monotonic()
    one, two = (measured(workers, options.rows, options.trees, options.trials) for workers in (1, 2))
    print(
        f"{options.trials} equal trials: one worker {one:.1f} s, two workers {two:.1f} s, "
        f"ratio {two / one:.2f} (goal {GOAL})"
    )
    print(f"all in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
