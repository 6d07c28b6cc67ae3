"""XGBoost for classes."""

from __future__ import annotations

from typing import Any

from runtimes.trainers.xgboost_trees import XGBoostParams, XGBoostTrainer


class XGBoostClassifierTrainer(XGBoostTrainer):
    """XGBoost's trees; takes missing values as they are."""

    name = "xgboost_classifier"
    title = "XGBoost (classes)"
    task = "classification"

    def estimator(self) -> Any:
        """An XGBClassifier with these parameters."""
        from xgboost import XGBClassifier  # heavy: in a runner only

        assert isinstance(self.params, XGBoostParams)
        return XGBClassifier(**self.params.for_estimator())

    def fit_estimator(self, rows: Any, target: Any, on_step: Any) -> Any:
        """The fitted classifier behind one of scikit-learn's that numbers the classes, as XGBoost wants them."""
        from sklearn.ensemble import VotingClassifier  # heavy: in a runner only

        return VotingClassifier([("xgboost", self.estimator())], voting="soft").fit(rows, target)
