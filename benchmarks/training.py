"""From a table to the model that serves, on real and on large tables: `python -m benchmarks.training`.

Runs a platform of its own, which is gone afterwards. Each table goes upload -> profile -> run -> search -> compare ->
activation by metric -> predict, over REST. Prints what each step took, what a fit needed of memory, and by how much the
workers' own processes grew.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from sklearn import datasets

from benchmarks.machine import described
from benchmarks.serving.platform import ROOT, running_stack
from runtimes.limits import MIB

sys.path.insert(0, str(ROOT / "clients" / "python" / "src"))  # a project of its own, which nobody has to install here
from tenantry_client import Tenant

TARGET = "target"
TRIALS = 6


@dataclass(frozen=True)
class Story:
    """A table and how it is learned."""

    name: str
    make: Callable[[], pd.DataFrame]
    trainer: str
    params: Mapping[str, Any]
    space: Mapping[str, Any]
    metric: str


def main() -> None:
    """Tell each story and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="of the large table")
    parser.add_argument("--only", default="", help="the stories whose name contains this")
    asked = parser.parse_args()
    print(described())
    with tempfile.TemporaryDirectory() as name, running_stack({}) as operator:
        made, _ = operator.tenant("bench", "Benchmark")
        tenant = Tenant(made.base_url, made.token)
        for story in stories(asked.rows):
            if asked.only in story.name:
                before = _worker_bytes()
                print(f"\n{story.name}", flush=True)
                _tell(tenant, story, Path(name))
                _print(
                    "workers' own memory, before and after", f"{before / MIB:.0f} -> {_worker_bytes() / MIB:.0f} MiB"
                )


def stories(rows: int) -> tuple[Story, ...]:
    """scikit-learn's own data sets, and a large table with texts and missing values."""
    forest: Mapping[str, Any] = {"n_estimators": 100}
    depths: Mapping[str, Any] = {"max_depth": {"low": 2, "high": 12}}
    boosted: Mapping[str, Any] = {"learning_rate": {"low": 0.02, "high": 0.3, "log": True}}
    return (
        Story("breast-cancer", _shipped(datasets.load_breast_cancer), "random_forest_classifier", forest, depths, "f1"),
        Story("wine", _shipped(datasets.load_wine), "random_forest_classifier", forest, depths, "accuracy"),
        Story("digits", _shipped(datasets.load_digits), "random_forest_classifier", forest, depths, "accuracy"),
        Story("diabetes", _shipped(datasets.load_diabetes), "random_forest_regressor", forest, depths, "r2"),
        Story(
            f"{rows:,}-rows",
            lambda: large_table(rows),
            "hist_gradient_boosting_classifier",
            {"max_iter": 50},
            boosted,
            "roc_auc",
        ),
    )


def _shipped(load: Callable[..., Any]) -> Callable[[], pd.DataFrame]:
    def make() -> pd.DataFrame:
        frame: pd.DataFrame = load(as_frame=True).frame
        return frame

    return make


def large_table(rows: int) -> pd.DataFrame:
    """30 columns beside the target: numbers, categories and texts, with missing values among them."""
    random = np.random.default_rng(1)
    frame = pd.DataFrame({f"n{place}": random.normal(size=rows) for place in range(20)})
    frame["city"] = random.choice(["Aachen", "Bremen", "Chemnitz", "Dresden", "Essen"], rows)
    frame["plan"] = random.choice(["free", "team", "company"], rows, p=[0.6, 0.3, 0.1])
    for place in range(6):
        frame[f"c{place}"] = random.choice([f"kind {kind}" for kind in range(4 + 6 * place)], rows)
    frame["since"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 2_000, rows), unit="D")
    frame["seen"] = random.integers(0, 5_000, rows)
    score = frame.n0 + frame.n1 * frame.n2 + (frame.plan == "company") - 0.5 * (frame.city == "Essen")
    frame[TARGET] = np.where(score + random.normal(scale=0.5, size=rows) > 0, "stays", "leaves")
    for column in ("n3", "n4", "city", "c2", "since"):
        frame.loc[random.random(rows) < 0.1, column] = None
    return frame


def _tell(tenant: Tenant, story: Story, folder: Path) -> None:
    frame, file, model = story.make(), folder / "table.csv", story.name.replace(",", "")
    frame.to_csv(file, index=False)
    _print("rows x columns, file", f"{len(frame):,} x {frame.shape[1] - 1}, {file.stat().st_size / MIB:.1f} MiB")
    dataset = _timed("upload, until profiled", lambda: tenant.datasets.upload(file, model))
    profile = dataset.profile()
    _print("missing cells that the profile found", sum(column["missing"] for column in profile["columns"]))
    start = {"params": story.params, "activate_if": {"metric": story.metric}}
    run = _timed("run", lambda: tenant.runs.start(story.trainer, dataset, TARGET, model, **start).wait(**QUIETLY))
    _print(f"its {story.metric}", f"{run.metrics[story.metric]:.3f}")
    _print("its fit", f"{run.body['duration_s']:.1f} s, {run.body['peak_memory_bytes'] / MIB:.0f} MiB at its highest")
    asked = {"metric": story.metric, "method": "bayes", "trials": TRIALS, "params": story.params}
    search = tenant.searches.start(story.trainer, dataset, TARGET, model, story.space, **asked)
    found = _timed(f"search of {TRIALS} trials", lambda: search.wait(**QUIETLY))
    best = tenant.runs[found.id]
    compared = {row["name"]: row["values"] for row in tenant.runs.compare(run, best)["metrics"]}
    _print(f"{story.metric} of the run and of the best one", compared[story.metric])
    tenant.models[model].version(run.version).wait_until_ready()
    rows = frame.drop(columns=TARGET).head(3)
    answer = _timed("first prediction", lambda: tenant.models[model].answer(rows))
    _print("what serves", f"version {answer['version']}, answers {answer['predictions']}")


QUIETLY: Mapping[str, Any] = {"shows_progress": False}


def _timed(what: str, do: Callable[[], Any]) -> Any:
    started = time.monotonic()
    done = do()
    _print(what, f"{time.monotonic() - started:.1f} s")
    return done


def _print(what: str, value: object) -> None:
    print(f"  {what:42} {value}", flush=True)


def _worker_bytes() -> int:
    """The resident memory of this platform's Celery workers."""
    family = psutil.Process(os.getpid()).children(recursive=True)
    return sum(
        one.memory_info().rss for one in family if "celery" in " ".join(one.cmdline()) and "worker" in one.cmdline()
    )


if __name__ == "__main__":
    main()
