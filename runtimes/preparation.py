"""What columns need before an estimator takes them: missing values filled, strings encoded, numbers scaled."""

from __future__ import annotations

from typing import Any

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from runtimes.trainers.trainer import Preparation

MAX_CATEGORIES = 100
MISSING = "missing"


def transformer(features: pd.DataFrame, preparation: Preparation) -> ColumnTransformer:
    """The unfitted transformer for these columns; unknown words and missing values are no error when it predicts."""
    texts = [name for name in features.columns if features[name].dtype == object]
    numbers = [name for name in features.columns if features[name].dtype != object]
    steps = [("numbers", _numbers(preparation), numbers), ("texts", _texts(preparation), texts)]
    return ColumnTransformer([step for step in steps if step[2]], sparse_threshold=0.0)


def _numbers(preparation: Preparation) -> Any:
    if preparation == "ordinal":
        return "passthrough"
    filled = SimpleImputer(strategy="median", keep_empty_features=True)
    return make_pipeline(filled, StandardScaler()) if preparation == "scaled" else filled


def _texts(preparation: Preparation) -> Any:
    filled = SimpleImputer(strategy="constant", fill_value=MISSING)
    if preparation == "ordinal":
        return make_pipeline(filled, OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1))
    encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=MAX_CATEGORIES, sparse_output=False)
    return make_pipeline(filled, encoder)
