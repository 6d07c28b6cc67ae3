"""A version is tried by hand: a form of its columns, the answer, and the same request for other tools."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tests.inference.conftest import fitted, ready_version

__all__ = ["ready_version"]  # a fixture
VERSIONS = "admin/models_registry/modelversion"


def by_columns() -> Any:
    """A classifier of an age and a plan."""
    rows = pd.DataFrame({"age": [20.0, 30, 60, 70], "plan": ["a", "b", "a", "b"]})
    encode = make_column_transformer((StandardScaler(), ["age"]), (OneHotEncoder(handle_unknown="ignore"), ["plan"]))
    return make_pipeline(encode, LogisticRegression()).fit(rows, ["stays", "stays", "leaves", "leaves"])


def test_a_form_of_columns_answers_with_probabilities_and_snippets(
    acme: Any, logged_in: Any, ready_version: Any
) -> None:
    version = ready_version(acme, "churn", by_columns())
    person = logged_in(acme, "data_scientist")
    page = person.get(f"{VERSIONS}/{version.pk}/try/").content.decode()
    assert page.count('name="column-') == 2
    answered = person.post(f"{VERSIONS}/{version.pk}/try/", {"column-0": "65", "column-1": "a"}).content.decode()
    assert "leaves" in answered
    assert '<svg class="tny-plot"' in answered
    for words in (
        "tritonclient",
        "curl http://testserver/t/acme/",
        "/models/churn/invocations",
        "&#x27;age&#x27;: 65.0",
    ):
        assert words in answered


def test_what_is_wrong_is_said_in_the_form(acme: Any, logged_in: Any, ready_version: Any) -> None:
    version = ready_version(acme, "churn", fitted())
    person = logged_in(acme, "admin")
    refused = person.post(f"{VERSIONS}/{version.pk}/try/", {"row": "[1, 2]"}).content.decode()
    assert "tny-refusal" in refused
    assert person.post(f"{VERSIONS}/{version.pk}/try/", {"row": "no json"}).status_code == 200


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("data_scientist", 200)])
def test_who_may_not_predict_may_not_try(here: Any, make_version: Any, logged_in: Any, role: str, status: int) -> None:
    version = make_version()
    person = logged_in(here, role)
    assert person.get(f"{VERSIONS}/{version.pk}/try/").status_code == status
    shown = person.get(f"{VERSIONS}/{version.pk}/change/").content.decode()
    assert ("/try/" in shown) == (status == 200)


def test_a_sample_fits_whatever_the_signature_says() -> None:
    from inference.admin.samples import sample_row
    from runtimes.signature import Field, Signature

    image = Signature("tensor", (Field("x", "float32", (-1, 2, -1, 3)),), (), None)
    assert np.shape(sample_row(image, None)) == (2, 1, 3)
    columns = Signature("columns", (Field("a", "float64", (-1,)), Field("b", "string", (-1,))), (), None)
    for example in ([{"a": 1, "b": "x"}], {"a": [1], "b": ["x"]}, {"columns": ["a", "b"], "data": [[1, "x"]]}):
        assert sample_row(columns, example) == {"a": 1, "b": "x"}
    assert sample_row(columns, "nonsense") == {"a": 0, "b": ""}
