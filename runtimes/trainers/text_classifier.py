"""A linear classifier of texts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from runtimes.trainers.estimator import EstimatorTrainer
from runtimes.trainers.trainer import TrainerParams


class TextClassifierParams(TrainerParams):
    """Parameters of a classifier of texts."""

    column: str | None = Field(
        default=None, max_length=250, description="The column with the text; every column of words if empty."
    )
    ngrams: int = Field(default=1, ge=1, le=3, description="Up to how many words in a row count as one term.")
    max_features: int = Field(default=50_000, ge=10, le=1_000_000, description="How many terms are kept.")
    min_df: int = Field(default=1, ge=1, description="In how many texts a term must be to count.")
    C: float = Field(default=1.0, gt=0, description="Inverse of the regularisation's strength.")
    max_iter: int = Field(default=1000, ge=1, le=100_000, description="The most iterations of the solver.")
    class_weight: Literal["balanced"] | None = Field(default=None, description="Weigh classes by their rarity.")


class TextClassifierTrainer(EstimatorTrainer):
    """Words weighed by how rare they are (TF-IDF), and a logistic regression over them."""

    name = "text_classifier"
    title = "Text classification"
    task = "classification"
    Params = TextClassifierParams
    preparation = "text"

    def columns(self, features: Any) -> list[str]:
        """The text's column, or all that have words and no dates."""
        from runtimes.preparation import date_columns  # it imports scikit-learn

        wanted = self.params.model_dump()["column"]
        dates = date_columns(features)
        words = [str(name) for name in features.columns if features[name].dtype == object and name not in dates]
        if wanted is not None and wanted not in words:
            raise ValueError(f"there is no column '{wanted}' of texts; there are {', '.join(words) or 'none'}")
        if not words:
            raise ValueError("no column holds texts")
        return [wanted] if wanted is not None else words

    def transformer(self, features: Any) -> Any:
        """TF-IDF, a vocabulary for each column."""
        from runtimes.preparation import text_transformer  # it imports scikit-learn

        names = ("ngrams", "max_features", "min_df")
        chosen = {name: value for name, value in self.params.model_dump().items() if name in names}
        return text_transformer(self.columns(features), **chosen)

    def estimator(self) -> Any:
        """A LogisticRegression with these parameters."""
        from sklearn.linear_model import LogisticRegression  # heavy: in a runner only

        names = ("C", "max_iter", "class_weight")
        return LogisticRegression(**{name: self.params.model_dump()[name] for name in names})
