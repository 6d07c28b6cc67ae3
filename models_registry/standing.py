"""How good models are, for lists: the best value of the metric that most of their versions have."""

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection

# Of metrics that as many versions have, the first of these stands for a model.
USUAL = ("roc_auc", "auc", "f1", "accuracy", "r2", "log_loss", "rmse", "mae")
ERRORS = frozenset({"mae", "mape", "mse", "rmse", "rmsle", "brier"})

QUERY = """
    SELECT version.model_id, metric.key, count(*), max(metric.value::text::numeric), min(metric.value::text::numeric)
    FROM models_registry_modelversion AS version,
         jsonb_each(version.metrics_reported || version.metrics_measured) AS metric
    WHERE version.model_id = ANY(%s) AND version.state = 'ready' AND jsonb_typeof(metric.value) = 'number'
    GROUP BY 1, 2
"""


@dataclass(frozen=True)
class Best:
    """The best value of a metric among a model's ready versions."""

    metric: str
    value: float


def is_error(metric: str) -> bool:
    """Whether less of a metric is better, going by its name."""
    name = metric.lower()
    return name in ERRORS or any(word in name for word in ("loss", "error", "rmse", "mae"))


def best_metrics(models: Sequence[uuid.UUID]) -> dict[uuid.UUID, Best]:
    """The best metric of each of these models that has one, in one query."""
    with connection.cursor() as cursor:
        cursor.execute(QUERY, [list(models)])
        rows = cursor.fetchall()
    found: dict[uuid.UUID, tuple[tuple[int, int, str], Best]] = {}
    for model, metric, count, highest, lowest in rows:
        value = float(lowest if is_error(metric) else highest)
        rank = (-count, USUAL.index(metric) if metric in USUAL else len(USUAL), metric)
        if math.isfinite(value) and (model not in found or rank < found[model][0]):
            found[model] = (rank, Best(metric, value))
    return {model: best for model, (_, best) in found.items()}
