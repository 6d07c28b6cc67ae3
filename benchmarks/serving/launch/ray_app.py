"""Ray Serve with a scikit-learn pickle that this benchmark has made."""

import os
import pickle
import time
from pathlib import Path

import numpy as np
import ray
from ray import serve
from ray.serve.config import HTTPOptions


@serve.deployment(num_replicas=2, max_ongoing_requests=64, ray_actor_options={"num_cpus": 0.5})
class Served:
    """The model MODEL."""

    def __init__(self):
        self.model = pickle.loads((Path(os.environ["MODELS"]) / f"{os.environ['MODEL']}.pkl").read_bytes())

    async def __call__(self, request):
        rows = np.asarray((await request.json())["rows"])
        return {"predictions": self.model.predict(rows).tolist()}


ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
serve.start(http_options=HTTPOptions(host="127.0.0.1", port=int(os.environ["PORT"])))
serve.run(Served.bind(), route_prefix="/")
while True:
    time.sleep(3600)
