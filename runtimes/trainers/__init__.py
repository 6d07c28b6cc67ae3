"""The built-in trainers by name. Importing them costs pydantic and not scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping

from runtimes.trainers.hist_gradient_boosting_classifier import HistGradientBoostingClassifierTrainer
from runtimes.trainers.hist_gradient_boosting_regressor import HistGradientBoostingRegressorTrainer
from runtimes.trainers.linear_regression import LinearRegressionTrainer
from runtimes.trainers.logistic_regression import LogisticRegressionTrainer
from runtimes.trainers.random_forest_classifier import RandomForestClassifierTrainer
from runtimes.trainers.random_forest_regressor import RandomForestRegressorTrainer
from runtimes.trainers.trainer import Trainer, TrainerParams

TRAINERS: Mapping[str, type[Trainer]] = {
    trainer.name: trainer
    for trainer in (
        LogisticRegressionTrainer,
        RandomForestClassifierTrainer,
        RandomForestRegressorTrainer,
        HistGradientBoostingClassifierTrainer,
        HistGradientBoostingRegressorTrainer,
        LinearRegressionTrainer,
    )
}

__all__ = ["TRAINERS", "Trainer", "TrainerParams"]
