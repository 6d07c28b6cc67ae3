"""Writes MLflow's folder of each model, by MLflow itself: `mlflow_folder.py MODELS`."""

import pickle
import shutil
import sys
from pathlib import Path

import mlflow.sklearn

folder = Path(sys.argv[1])
for file in sorted(folder.glob("*.pkl")):
    target = folder / f"mlflow_{file.stem}"
    shutil.rmtree(target, ignore_errors=True)
    mlflow.sklearn.save_model(
        pickle.loads(file.read_bytes()), target, pip_requirements=["scikit-learn"], serialization_format="cloudpickle"
    )
