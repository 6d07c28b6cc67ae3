"""The built-in trainers by name: one class a file. Importing them costs pydantic and none of their libraries."""

from __future__ import annotations

from collections.abc import Mapping

from runtimes.trainers.hist_gradient_boosting_classifier import HistGradientBoostingClassifierTrainer
from runtimes.trainers.hist_gradient_boosting_regressor import HistGradientBoostingRegressorTrainer
from runtimes.trainers.k_neighbors_classifier import KNeighborsClassifierTrainer
from runtimes.trainers.k_neighbors_regressor import KNeighborsRegressorTrainer
from runtimes.trainers.lightgbm_classifier import LightGBMClassifierTrainer
from runtimes.trainers.lightgbm_regressor import LightGBMRegressorTrainer
from runtimes.trainers.linear_regression import LinearRegressionTrainer
from runtimes.trainers.logistic_regression import LogisticRegressionTrainer
from runtimes.trainers.mlp_classifier import MlpClassifierTrainer
from runtimes.trainers.mlp_regressor import MlpRegressorTrainer
from runtimes.trainers.page_detector import PageDetectorTrainer
from runtimes.trainers.random_forest_classifier import RandomForestClassifierTrainer
from runtimes.trainers.random_forest_regressor import RandomForestRegressorTrainer
from runtimes.trainers.text_classifier import TextClassifierTrainer
from runtimes.trainers.trainer import Trainer, TrainerParams
from runtimes.trainers.xgboost_classifier import XGBoostClassifierTrainer
from runtimes.trainers.xgboost_regressor import XGBoostRegressorTrainer

TRAINERS: Mapping[str, type[Trainer]] = {
    trainer.name: trainer
    for trainer in (
        LogisticRegressionTrainer,
        RandomForestClassifierTrainer,
        RandomForestRegressorTrainer,
        HistGradientBoostingClassifierTrainer,
        HistGradientBoostingRegressorTrainer,
        LinearRegressionTrainer,
        KNeighborsClassifierTrainer,
        KNeighborsRegressorTrainer,
        XGBoostClassifierTrainer,
        XGBoostRegressorTrainer,
        LightGBMClassifierTrainer,
        LightGBMRegressorTrainer,
        MlpClassifierTrainer,
        MlpRegressorTrainer,
        TextClassifierTrainer,
        PageDetectorTrainer,
    )
    if trainer.is_offered()
}

__all__ = ["TRAINERS", "Trainer", "TrainerParams"]
