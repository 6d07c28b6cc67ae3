"""BentoML with a scikit-learn pickle that this benchmark has made; BATCH_MS > 0 lets it batch."""

import os
import pickle
from pathlib import Path

import bentoml
import numpy as np

BATCH_MS = int(os.environ.get("BATCH_MS", "0"))
BATCHING = {"batchable": True, "max_batch_size": 64, "max_latency_ms": BATCH_MS} if BATCH_MS else {}


@bentoml.service(workers=2, logging={"access": {"enabled": False}}, traffic={"timeout": 30})
class Served:
    """The model MODEL."""

    def __init__(self) -> None:
        self.model = pickle.loads((Path(os.environ["MODELS"]) / f"{os.environ['MODEL']}.pkl").read_bytes())

    @bentoml.api(**BATCHING)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.model.predict(rows)
