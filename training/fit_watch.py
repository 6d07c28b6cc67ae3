"""The worker's side of a fit while it lasts: what it reports is kept, and a cancelled run ends it."""

import math
import statistics
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.utils import timezone

from runtimes.client import Progress
from tenants.models import Job, JobState
from training.models import Purpose, Run, RunMetric

LOOK_EVERY_S = 1.0
LOG_EVERY_S = 0.5
REPORT_EVERY_S = 0.5
MAX_HISTORY = 10_000
MOST_URGENT = 12_000  # reports of a fit that are kept at once; what comes after them waits for its half second
MOST_LINES = 2_000  # of a log that wait to be written; of more, those that came last
MAX_METRICS = 100
PRUNE_FROM_STEP, PRUNE_AMONG = 3, 3


class TrialPruned(Exception):
    """A trial is worse than most were at this point, so it is not worth its end."""

    def __init__(self, value: float, step: int) -> None:
        super().__init__(f"{value:.6g} at step {step} is worse than most trials were")
        self.value, self.step = value, step


class FitWatch:
    """Keeps a fit's progress, metrics and log with its run, and knows whether the run is still wanted.

    What a fit reports is bounded here: it may come from somebody else's code.
    """

    def __init__(self, job: Job, run: Run) -> None:
        self.job, self.run = job, run
        self._looked_at = self._reported_at = float("-inf")
        self._stage = ""
        self._steps: dict[str, int] = {}
        self._history = 0
        self._is_lost = False
        self._urgent_left = MOST_URGENT
        self._lines: deque[str] = deque(maxlen=MOST_LINES)
        self._wrote_at = float("-inf")
        search = (run.parent.search or {}) if run.purpose == Purpose.TRIAL and run.parent else {}
        self.metric = str(search.get("metric", "")) if search.get("prune") else ""
        self._sign = -1 if search.get("direction") == "min" else 1

    def begin(self) -> None:
        """Begin an attempt: the metrics of a lost one are dropped, its log is kept."""
        with transaction.atomic():
            self.job.report(0, "starting")
            self.run.metric_history.all().delete()
            self.run.write_log(f"attempt {self.job.attempts} of {self.job.max_attempts} starts")

    def on_progress(self, progress: Progress) -> None:
        """Keep what the fit reports; between two reports without a metric or a new stage, half a second passes, and
        between any two where there are very many.

        Raises:
            JobLost: the run was cancelled, or taken by another worker.
        """
        if progress.log:
            self._add_line(progress.log)
            return
        metrics = finite(progress.metrics or {})
        is_new_stage = progress.stage != self._stage
        is_urgent = self._urgent_left > 0 and bool(metrics or is_new_stage)
        if not is_urgent and time.monotonic() - self._reported_at < REPORT_EVERY_S:
            return
        self._urgent_left -= is_urgent
        self._reported_at, self._stage = time.monotonic(), progress.stage
        with transaction.atomic():
            self.job.report(progress.percent, progress.stage)  # first: a lost job writes nothing
            if metrics:
                self._add_history(metrics)
            if metrics or is_new_stage:
                self._add_line(_line(progress, metrics), is_held=True)
        if self.metric in metrics:
            self._prune(metrics[self.metric], self._steps.get(self.metric, 1) - 1)

    def flush(self) -> None:
        """Write the lines of the log that wait."""
        if self._lines:
            self._wrote_at = time.monotonic()
            self.run.write_log(*self._lines)
            self._lines.clear()

    def _add_line(self, line: str, *, is_held: bool = False) -> None:
        """Lines that come close together are written together."""
        self._lines.append(line)
        if time.monotonic() - self._wrote_at >= LOG_EVERY_S:
            if not is_held:
                self.job.renew()  # a lost job writes nothing
            self.flush()

    def _prune(self, value: float, step: int) -> None:
        """Stop a trial whose metric is worse than the median of the other trials' at the same step.

        Raises:
            TrialPruned: it is.
        """
        if step < PRUNE_FROM_STEP:
            return
        others = RunMetric.objects.filter(run__parent=self.run.parent_id, key=self.metric, step=step)
        values = list(others.exclude(run=self.run.pk).values_list("value", flat=True))
        if len(values) >= PRUNE_AMONG and self._sign * value < self._sign * statistics.median(values):
            raise TrialPruned(value, step)

    def is_cancelled(self) -> bool:
        """Whether the fit should stop; the row is looked at once a second at most."""
        if not self._is_lost and time.monotonic() - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = time.monotonic()
            held = Job.objects.filter(pk=self.job.pk, state=JobState.RUNNING, fence=self.job.fence)
            self._is_lost = not held.exists()
        return self._is_lost

    def _add_history(self, metrics: Mapping[str, float]) -> None:
        room = MAX_HISTORY - self._history
        now = timezone.now()
        rows = [
            RunMetric(run=self.run, key=key[:250], value=value, step=self._next_step(key), at=now)
            for key, value in list(metrics.items())[:room]
        ]
        RunMetric.objects.bulk_create(rows)
        self._history += len(rows)

    def _next_step(self, key: str) -> int:
        step = self._steps.get(key, 0)
        self._steps[key] = step + 1
        return step


def finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are numbers: JSON and comparisons know neither NaN nor infinity."""
    numbers = {
        str(key): float(value)
        for key, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
    return dict(list(numbers.items())[:MAX_METRICS])


def _line(progress: Progress, metrics: Mapping[str, float]) -> str:
    numbers = "".join(f" {key}={value:.6g}" for key, value in metrics.items())
    return f"{progress.percent:.0f}% {progress.stage}{numbers}"
