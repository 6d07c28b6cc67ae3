"""What columns need before an estimator takes them: missing values filled, strings and dates made numbers, scaled."""

from __future__ import annotations

from typing import Any

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from runtimes.portable import date_parts, texts_of
from runtimes.trainers.estimator import Preparation

MAX_CATEGORIES = 100
MISSING = "missing"
DATE_PATTERN = r"\d{4}-\d{2}-\d{2}([T ].*)?"
DATE_SHARE = 0.95
LOOKED_AT = 1_000  # cells of a column, to tell dates from words


def transformer(features: pd.DataFrame, preparation: Preparation) -> ColumnTransformer:
    """The unfitted transformer for these columns; unknown words and missing values are no error when it predicts."""
    numbers = [name for name in features.columns if features[name].dtype != object]
    dates = date_columns(features)
    words = [name for name in features.columns if name not in {*numbers, *dates}]
    steps = [
        ("numbers", _numbers(preparation), numbers),
        ("dates", make_pipeline(FunctionTransformer(date_parts), _numbers(preparation)), dates),
        ("texts", _words(preparation), words),
    ]
    return ColumnTransformer([step for step in steps if step[2]], sparse_threshold=0.0)


def text_transformer(columns: list[str], *, ngrams: int, max_features: int, min_df: int) -> ColumnTransformer:
    """The unfitted TF-IDF of these columns, each with a vocabulary of its own."""

    def vectorizer() -> Any:
        weights = TfidfVectorizer(
            ngram_range=(1, ngrams),
            max_features=max_features,
            min_df=min_df,
            sublinear_tf=True,
            strip_accents="unicode",
        )
        return make_pipeline(FunctionTransformer(texts_of), weights)

    return ColumnTransformer([(f"text {place}", vectorizer(), name) for place, name in enumerate(columns)])


def date_columns(features: pd.DataFrame) -> list[str]:
    """The columns whose strings are dates or moments in ISO form, but for a few."""
    return [name for name in features.columns if features[name].dtype == object and is_date(features[name])]


def is_date(column: pd.Series) -> bool:
    """Whether the strings of a column are dates or moments in ISO form, but for a few."""
    words = column.dropna().head(LOOKED_AT).astype(str)
    if words.empty or words.str.fullmatch(DATE_PATTERN).mean() < DATE_SHARE:
        return False
    return bool(pd.to_datetime(words, format="ISO8601", errors="coerce", utc=True).notna().mean() >= DATE_SHARE)


def _numbers(preparation: Preparation) -> Any:
    if preparation == "ordinal":
        return "passthrough"
    filled = SimpleImputer(strategy="median", keep_empty_features=True)
    return make_pipeline(filled, StandardScaler()) if preparation == "scaled" else filled


def _words(preparation: Preparation) -> Any:
    filled = SimpleImputer(strategy="constant", fill_value=MISSING)
    if preparation == "ordinal":
        return make_pipeline(filled, OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1))
    encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=MAX_CATEGORIES, sparse_output=False)
    return make_pipeline(filled, encoder)
