"""LitServe with a scikit-learn pickle that this benchmark has made; BATCH_S > 0 lets it batch."""

import os
import pickle
from pathlib import Path

import litserve
import numpy as np

BATCH_S = float(os.environ.get("BATCH_S", "0"))


class Pickled(litserve.LitAPI):
    """The model MODEL."""

    def setup(self, device):
        self.model = pickle.loads((Path(os.environ["MODELS"]) / f"{os.environ['MODEL']}.pkl").read_bytes())

    def decode_request(self, request):
        return np.asarray(request["rows"])

    def batch(self, inputs):
        self.sizes = [len(rows) for rows in inputs]
        return np.concatenate(inputs)

    def unbatch(self, output):
        return np.split(output, np.cumsum(self.sizes)[:-1])

    def predict(self, rows):
        return self.model.predict(rows)

    def encode_response(self, output):
        return {"predictions": np.asarray(output).tolist()}


if __name__ == "__main__":
    batching = {"max_batch_size": 64, "batch_timeout": BATCH_S} if BATCH_S else {}
    server = litserve.LitServer(
        Pickled(**batching), accelerator="cpu", devices=1, workers_per_device=2, fast_queue=True, timeout=30
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
