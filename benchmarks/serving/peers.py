"""The peers: what each is installed from, and how it is started with its best known set-ups."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving.contestants import Peer

LAUNCH = Path(__file__).with_name("launch")
BARE_DJANGO = "bare Django view, onnxruntime in-process"
GRANIAN = ("--interface", "wsgi", "--workers", "2", "--blocking-threads", "4", "--no-ws", "--log-level", "warning")


@dataclass(frozen=True)
class Package:
    """A peer's own environment. python: the interpreter that makes it; None: this one."""

    requirements: tuple[str, ...]
    python: str | None = None


PACKAGES: Mapping[str, Package] = {
    # MLServer sets an event loop that later uvloops no longer have
    "mlserver": Package(("mlserver", "mlserver-sklearn", "uvloop<0.22")),
    "litserve": Package(("litserve", "scikit-learn")),
    "mlflow": Package(("mlflow", "scikit-learn")),
    # its server looks for the system's libpython
    "pytriton": Package(("nvidia-pytriton", "scikit-learn", "onnxruntime"), "/usr/bin/python3"),
    "bentoml": Package(("bentoml", "scikit-learn")),
    "ray": Package(("ray[serve]", "scikit-learn")),
}
USUAL = ("mlserver", "litserve", "mlflow", "pytriton")


def install(name: str, folder: Path) -> str | None:
    """Have a peer's environment in `folder`/NAME; why there is none, if it cannot be made."""
    package = PACKAGES[name]
    python = folder / name / "bin" / "python"
    finished = folder / name / "installed"
    if finished.exists() and finished.read_text() == " ".join(package.requirements):
        return None
    commands = (
        [package.python or sys.executable, "-m", "venv", str(folder / name)],
        [str(python), "-m", "pip", "install", "--quiet", *package.requirements],
    )
    for command in commands:
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if ended.returncode != 0:
            return ended.stderr.strip().splitlines()[-1][:200]
    finished.write_text(" ".join(package.requirements))
    return None


def prepare(name: str, folder: Path, models: Path) -> None:
    """Write what a peer needs besides the models."""
    if name == "mlflow":
        subprocess.run(
            [str(folder / name / "bin" / "python"), str(LAUNCH / "mlflow_folder.py"), str(models)], check=True
        )


def versions(name: str, folder: Path) -> str:
    """What is installed of a peer, as `name version`."""
    requirement = PACKAGES[name].requirements[0].partition("[")[0]
    code = f"from importlib.metadata import version; print({requirement!r}, version({requirement!r}))"
    ended = subprocess.run(
        [str(folder / name / "bin" / "python"), "-c", code], capture_output=True, text=True, check=True
    )
    return ended.stdout.strip()


def bare_django(models: Path) -> Peer:
    """What we are held against: Django and nothing else, the model in the web process."""
    command = (
        str(Path(sys.executable).with_name("granian")),
        *GRANIAN,
        "benchmarks.serving.launch.bare_django:application",
    )
    return Peer(
        BARE_DJANGO,
        ("sh", "-c", f"exec {' '.join(command)} --port $PORT"),
        models,
        _at("/predict"),
        _rows,
        _predictions,
        {},
    )


def contestants(name: str, folder: Path, models: Path) -> tuple[Peer, ...]:
    """A peer's set-ups."""
    python = str(folder / name / "bin" / "python")
    made: Mapping[str, Callable[[], tuple[Peer, ...]]] = {
        "mlserver": lambda: _mlserver(python, models),
        "litserve": lambda: _litserve(python, models),
        "mlflow": lambda: _mlflow(python, models),
        "pytriton": lambda: _pytriton(python, models),
        "bentoml": lambda: _bentoml(python, models),
        "ray": lambda: (_peer("Ray Serve", (python, str(LAUNCH / "ray_app.py")), models, "/", _rows, _predictions),),
    }
    return made[name]()


def _mlserver(python: str, models: Path) -> tuple[Peer, ...]:
    command = (str(LAUNCH / "mlserver.sh"),)

    def peer(name: str, **settings: str) -> Peer:
        return Peer(name, command, models, _infer, _tensor("predict"), _first_output, {"PYTHON": python, **settings})

    return peer("MLServer"), peer("MLServer, batching", BATCH_S="0.001")


def _litserve(python: str, models: Path) -> tuple[Peer, ...]:
    command = (python, str(LAUNCH / "litserve_app.py"))
    return (
        _peer("LitServe", command, models, "/predict", _rows, _predictions),
        _peer("LitServe, batching", command, models, "/predict", _rows, _predictions, BATCH_S="0.001"),
    )


def _mlflow(python: str, models: Path) -> tuple[Peer, ...]:
    program = str(Path(python).with_name("mlflow"))
    line = f'exec {program} models serve -m "$MODELS/mlflow_$MODEL" -h 127.0.0.1 -p $PORT --env-manager local -w 2'
    settings = {"PATH": f"{Path(python).parent}:/usr/bin:/bin", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return (_peer("MLflow serving", ("sh", "-c", line), models, "/invocations", _inputs, _predictions, **settings),)


def _pytriton(python: str, models: Path) -> tuple[Peer, ...]:
    def peer(name: str, **settings: str) -> Peer:
        command = (python, str(LAUNCH / "pytriton_app.py"))
        return Peer(name, command, models, _infer, _tensor("x"), _first_output, settings)

    return peer("PyTriton over scikit-learn"), peer("PyTriton over onnxruntime", ONNX="1")


def _bentoml(python: str, models: Path) -> tuple[Peer, ...]:
    program = str(Path(python).with_name("bentoml"))
    line = f"cd {LAUNCH} && exec {program} serve bentoml_app:Served --host 127.0.0.1 --port $PORT"
    settings = {"PATH": f"{Path(python).parent}:/usr/bin:/bin", "BENTOML_DO_NOT_TRACK": "True"}
    command = ("sh", "-c", line)
    return (
        _peer("BentoML", command, models, "/predict", _rows, lambda answer: list(answer), **settings),
        _peer(
            "BentoML, batching",
            command,
            models,
            "/predict",
            _rows,
            lambda answer: list(answer),
            BATCH_MS="5",
            **settings,
        ),
    )


def _peer(
    name: str,
    command: tuple[str, ...],
    models: Path,
    path: str,
    encode: Callable[[np.ndarray], Mapping[str, Any]],
    decode: Callable[[Any], list[Any]],
    **settings: str,
) -> Peer:
    return Peer(name, command, models, _at(path), encode, decode, settings)


def _at(path: str) -> Callable[[str], str]:
    return lambda model: path


def _infer(model: str) -> str:
    return f"/v2/models/{model}/infer"


def _rows(rows: np.ndarray) -> Mapping[str, Any]:
    return {"rows": rows.tolist()}


def _inputs(rows: np.ndarray) -> Mapping[str, Any]:
    return {"inputs": rows.tolist()}


def _tensor(name: str) -> Callable[[np.ndarray], Mapping[str, Any]]:
    def encode(rows: np.ndarray) -> Mapping[str, Any]:
        tensor = {"name": name, "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}
        return {"inputs": [tensor]}

    return encode


def _predictions(answer: Any) -> list[Any]:
    return list(answer["predictions"])


def _first_output(answer: Any) -> list[Any]:
    return list(answer["outputs"][0]["data"])
