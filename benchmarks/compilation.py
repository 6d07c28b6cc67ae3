"""What compiles to ONNX, how near the answers are, and what one row costs in either form.

    python -m benchmarks.compilation            the table of docs/compilation.md: every estimator of scikit-learn
    python -m benchmarks.compilation --speed    one row in the runner, original and compiled

Both run a model host of their own and ask it as the platform does. The times say little on a busy machine.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import all_estimators

from runtimes.bundle import pack
from runtimes.client import HostClient, LoadRequest
from runtimes.compilation.requesting import Compilation
from runtimes.errors import HostUnavailable, RuntimeFault

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(300, 5))
THREE = np.where(ROWS[:, 0] + ROWS[:, 1] > 0.7, "a", np.where(ROWS[:, 2] > 0, "b", "c"))
TWO = np.where(ROWS[:, 0] > 0, "a", "b")
NUMBERS = ROWS @ np.arange(1, 6) + RANDOM.normal(size=300) * 0.1
TARGETS = np.stack([NUMBERS, 2 * NUMBERS + ROWS[:, 0]], axis=1)
LABELS = np.stack([(TWO == "a").astype(int), (ROWS[:, 1] > 0).astype(int)], axis=1)
COUNTS = np.abs(np.round(ROWS * 2))
FRAME = pd.DataFrame(
    {
        "age": np.where(RANDOM.random(300) < 0.1, np.nan, RANDOM.normal(40, 10, 300)),
        "income": RANDOM.lognormal(10, 1, 300),
        "city": RANDOM.choice(["rome", "oslo", "lima"], 300),
        "plan": RANDOM.choice(["a", "b"], 300),
    }
)
OF_TWO_CLASSES = ("FixedThresholdClassifier", "TunedThresholdClassifierCV")
OF_SEVERAL_LABELS = ("MultiOutputClassifier", "ClassifierChain")
OF_SEVERAL_TARGETS = ("MultiOutputRegressor", "RegressorChain", "CCA", "PLSCanonical")
OF_COUNTS = ("CategoricalNB", "ComplementNB", "MultinomialNB", "BernoulliNB")
OF_POSITIVES = ("GammaRegressor", "PoissonRegressor", "TweedieRegressor")
CALLS = 2000


def estimators() -> Iterator[tuple[str, str, Any]]:
    """Every classifier, regressor, clusterer and outlier detector that can be fitted: its kind, its name, itself."""
    for kind in ("classifier", "regressor", "cluster", "outlier_detector"):
        found = outlier_detectors() if kind == "outlier_detector" else all_estimators(kind)
        for name, make in found:
            model = _made(name, make)
            if model is not None and hasattr(model, "predict"):
                yield kind, name, _fitted(name, kind, model)


def outlier_detectors() -> list[tuple[str, Any]]:
    """The outlier detectors, which scikit-learn lists under no kind."""
    return [(name, make) for name, make in all_estimators() if hasattr(make, "fit") and _is_outlier_detector(make)]


def _is_outlier_detector(make: Any) -> bool:
    return any(parent.__name__ == "OutlierMixin" for parent in make.__mro__)


def _made(name: str, make: Any) -> Any:
    parts = [("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=3))]
    choices: dict[str, dict[str, Any]] = {
        "StackingClassifier": {"estimators": parts},
        "VotingClassifier": {"estimators": parts, "voting": "soft"},
        "StackingRegressor": {"estimators": [("a", Ridge()), ("b", Ridge(2))]},
        "VotingRegressor": {"estimators": [("a", Ridge()), ("b", Ridge(2))]},
        "RadiusNeighborsClassifier": {"radius": 50.0},
        "RadiusNeighborsRegressor": {"radius": 50.0},
        "LocalOutlierFactor": {"novelty": True},
        "SelfTrainingClassifier": {"estimator": LogisticRegression()},
        **{one: {"estimator": LogisticRegression()} for one in (*OF_TWO_CLASSES, *OF_SEVERAL_LABELS)},
        **{f"{one}Classifier": {"estimator": LogisticRegression()} for one in ("OneVsOne", "OneVsRest", "OutputCode")},
        **{one: {"estimator": Ridge()} for one in OF_SEVERAL_TARGETS[:2]},
    }
    options = choices.get(name, {})
    try:
        model = make(**options)
    except TypeError:
        return None
    if "n_estimators" in model.get_params():
        model.set_params(n_estimators=20)
    return model


def _fitted(name: str, kind: str, model: Any) -> Any:
    rows, target = ROWS, THREE if kind == "classifier" else NUMBERS
    if name in OF_COUNTS:
        rows = COUNTS
    if name in OF_POSITIVES:
        target = np.abs(NUMBERS) + 0.1
    if name in OF_TWO_CLASSES:
        target = TWO
    if name == "SelfTrainingClassifier":
        target = LABELS[:, 0]
    if name in OF_SEVERAL_LABELS:
        target = LABELS
    if name.startswith("MultiTask") or name in OF_SEVERAL_TARGETS:
        target = TARGETS
    if name == "IsotonicRegression":
        rows = ROWS[:, :1]
    return model.fit(rows, target) if kind in ("classifier", "regressor") else model.fit(rows)


def pipelines() -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Pipelines as people write them, fitted, with what has to be declared."""
    words = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    rare = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=2, sparse_output=False)
    numbered = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    numbers, texts = ["age", "income"], ["city", "plan"]
    scaled = make_pipeline(SimpleImputer(), StandardScaler())

    def prepared(number: Any, word: Any) -> ColumnTransformer:
        return ColumnTransformer([("numbers", number, numbers), ("words", word, texts)])

    frame_made = {
        "impute, scale, one-hot → LogisticRegression": (prepared(scaled, words), LogisticRegression()),
        "impute, one-hot with rare words → RandomForestRegressor": (
            prepared(SimpleImputer(), rare),
            RandomForestRegressor(50),
        ),
        "ordinal words, missing numbers → HistGradientBoostingClassifier": (
            prepared("passthrough", numbered),
            HistGradientBoostingClassifier(),
        ),
        "one-hot that refuses unknown words → Ridge": (prepared(SimpleImputer(), OneHotEncoder()), Ridge()),
    }
    for name, (prepare, last) in frame_made.items():
        yield name, make_pipeline(prepare, last).fit(FRAME, _target(last)), {}
    tables = {
        "StandardScaler → RandomForestClassifier": (StandardScaler(), RandomForestClassifier(50)),
        "MinMaxScaler → HistGradientBoostingRegressor": (MinMaxScaler(), HistGradientBoostingRegressor()),
        "RobustScaler → Ridge": (RobustScaler(), Ridge()),
        "PolynomialFeatures → Ridge": (PolynomialFeatures(), Ridge()),
        "PowerTransformer → LogisticRegression": (PowerTransformer(), LogisticRegression()),
        "KBinsDiscretizer → LogisticRegression": (KBinsDiscretizer(), LogisticRegression()),
        "SelectKBest → LogisticRegression": (SelectKBest(k=3), LogisticRegression()),
        "PCA → LogisticRegression": (PCA(3), LogisticRegression()),
        "PCA → RandomForestClassifier": (PCA(3), RandomForestClassifier(50)),
        "TransformedTargetRegressor(Ridge)": (TransformedTargetRegressor(Ridge(), transformer=StandardScaler()),),
    }
    for name, steps in tables.items():
        yield name, make_pipeline(*steps).fit(ROWS, _target(steps[-1])), {}
    sentences = pd.DataFrame({"text": [f"{a} {b}" for a, b in zip(FRAME["city"], FRAME["plan"], strict=True)]})
    tfidf = make_pipeline(ColumnTransformer([("text", TfidfVectorizer(), "text")]), LogisticRegression())
    yield "TfidfVectorizer → LogisticRegression", tfidf.fit(sentences, TWO), {}


def _target(last: Any) -> Any:
    return (
        THREE
        if hasattr(last, "classes_") or "Classifi" in type(last).__name__ or "Logistic" in type(last).__name__
        else NUMBERS
    )


def compiled(
    client: HostClient, model: Any, metadata: Mapping[str, Any]
) -> tuple[Compilation, LoadRequest, LoadRequest]:
    """The verdict on a model, and what loads its original and its compiled form."""
    data, out = pickle.dumps(model), io.BytesIO()
    fd = bundle_of("model.pkl", data)
    found = client.inspect(fd, tenant="benchmark", metadata=metadata)
    signature = {"signature": found.signature.to_json()}
    verdict = client.compile(fd, format_name=found.format, options={**metadata, **signature}, out=out)
    original = LoadRequest(fd, "benchmark", found.format, signature)
    graph = LoadRequest(
        bundle_of("model.onnx", out.getvalue()), "benchmark", "onnx", {**signature, "is_compiled": True}
    )
    return verdict, original, graph


def bundle_of(path: str, data: bytes) -> int:
    """A descriptor of a packed bundle of one file."""
    with tempfile.TemporaryFile() as out:
        pack([(path, io.BytesIO(data), len(data))], out)
        return os.open(f"/proc/self/fd/{out.fileno()}", os.O_RDONLY)


@contextmanager
def model_host() -> Iterator[HostClient]:
    """A client of a model host that ends with the block."""
    with tempfile.TemporaryDirectory(prefix="tnt") as folder:
        path = Path(folder, "models.sock")
        process = subprocess.Popen([sys.executable, "-m", "runtimes.host", "--socket", str(path)])
        client = HostClient(f"unix:{path}")
        try:
            while not _answers(client):
                time.sleep(0.05)
            client.check()
            yield client
        finally:
            process.terminate()
            process.wait()


def _answers(client: HostClient) -> bool:
    try:
        client.stats()
    except HostUnavailable:
        return False
    return True


def table(client: HostClient) -> None:
    """Print what compiles, as Markdown."""
    counts = {"compiled": 0, "not_compiled": 0}
    print("| | estimator | verdict | one row, µs | compiled, µs |\n|---|---|---|---|---|")
    for kind, name, model in estimators():
        verdict = _verdict(client, model, {})
        counts[verdict.state] += 1
        print(_line(kind, name, verdict), flush=True)
    print(f"\n{counts['compiled']} of {sum(counts.values())} estimators compile to equal answers.\n")
    print("| | pipeline | verdict | one row, µs | compiled, µs |\n|---|---|---|---|---|")
    for name, model, metadata in pipelines():
        print(_line("pipeline", name, _verdict(client, model, metadata)), flush=True)


def _verdict(client: HostClient, model: Any, metadata: Mapping[str, Any]) -> Compilation:
    try:
        verdict, *loads = compiled(client, model, metadata)
    except RuntimeFault as fault:
        return Compilation("not_compiled", f"Rejected: {fault.message}")
    for load in loads:
        os.close(load.bundle_fd)
    return verdict


def _line(kind: str, name: str, verdict: Compilation) -> str:
    times = [verdict.original_one_row_us, verdict.one_row_us]
    shown = [f"{one:,.0f}" if one is not None else "" for one in times]
    said = verdict.sentence.replace("|", "/")
    precision = f" In {verdict.precision}." if verdict.precision == "float32" else ""
    return f"| {kind} | {name} | {said}{precision} | {shown[0]} | {shown[1]} |"


def speed(client: HostClient) -> None:
    """Print what one row costs in the runner, and over its socket, in either form."""
    rows = RANDOM.normal(size=(2000, 30))
    target = np.where(rows[:, 0] + rows[:, 1] * rows[:, 2] > 0, "yes", "no")
    words = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    scaled = make_pipeline(SimpleImputer(), StandardScaler())
    prepare = ColumnTransformer([("n", scaled, ["age", "income"]), ("w", words, ["city", "plan"])])
    models = {
        "LogisticRegression, 30 features": LogisticRegression().fit(rows, target),
        "RandomForestClassifier, 100 trees": RandomForestClassifier(100, random_state=0).fit(rows, target),
        "HistGradientBoostingClassifier": HistGradientBoostingClassifier().fit(rows, target),
        "ColumnTransformer (4 columns) → LogisticRegression": make_pipeline(prepare, LogisticRegression()).fit(
            FRAME, TWO
        ),
        "IsolationForest": IsolationForest(random_state=0).fit(rows),
    }
    row: Any = {"age": np.ones(1), "income": np.ones(1)} | {
        name: np.array([word], dtype=object) for name, word in (("city", "oslo"), ("plan", "a"))
    }
    print("| model | in the runner, µs | compiled, µs | a call, µs | compiled, µs |\n|---|---|---|---|---|")
    for name, model in models.items():
        verdict, original, graph = compiled(client, model, {})
        batch = row if "ColumnTransformer" in name else rows[:1].copy()
        calls = [_call_us(client, f"{name} {load.format}", load, batch) for load in (original, graph)]
        inside = [verdict.original_one_row_us or 0, verdict.one_row_us or 0]
        print("| " + " | ".join([name, *(f"{value:,.1f}" for value in [*inside, *calls])]) + " |", flush=True)


def _call_us(client: HostClient, key: str, load: LoadRequest, batch: Any) -> float:
    """The median of a call through the runner's socket, in microseconds."""
    runner = client.runner(key, lambda: load)
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        runner.predict(batch, deadline_s=30)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true", help="one row in either form, of a few models")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    with model_host() as client:
        (speed if asked.speed else table)(client)


if __name__ == "__main__":
    main()
