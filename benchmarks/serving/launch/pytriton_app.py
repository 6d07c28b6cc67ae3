"""PyTriton over scikit-learn, or over onnxruntime where ONNX is 1."""

import os
import pickle
from pathlib import Path

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

MODEL = os.environ["MODEL"]
FOLDER = Path(os.environ["MODELS"])
PORT = int(os.environ["PORT"])
FEATURES = {"logistic": 4, "forest": 30}


def over_sklearn():
    model = pickle.loads((FOLDER / f"{MODEL}.pkl").read_bytes())

    @batch
    def infer(x):
        return [model.predict(x).astype(np.int64).reshape(-1, 1)]

    return infer


def over_onnxruntime():
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(FOLDER / f"{MODEL}.onnx"), options, providers=["CPUExecutionProvider"])
    feature, label = session.get_inputs()[0], session.get_outputs()[0].name
    dtype = np.float64 if "double" in feature.type else np.float32

    @batch
    def infer(x):
        return [session.run([label], {feature.name: x.astype(dtype)})[0].reshape(-1, 1)]

    return infer


config = TritonConfig(
    http_port=PORT, grpc_port=PORT + 1, metrics_port=PORT + 2, http_address="127.0.0.1", allow_grpc=False, log_verbose=0
)
with Triton(config=config) as triton:
    triton.bind(
        model_name=MODEL,
        infer_func=over_onnxruntime() if os.environ.get("ONNX") == "1" else over_sklearn(),
        inputs=[Tensor(name="x", dtype=np.float64, shape=(FEATURES[MODEL],))],
        outputs=[Tensor(name="y", dtype=np.int64, shape=(1,))],
        config=ModelConfig(max_batch_size=64, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
    )
    triton.serve()
