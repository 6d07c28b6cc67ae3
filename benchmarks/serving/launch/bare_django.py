"""The least that Django can do: a view that decodes rows, asks onnxruntime in its own process, encodes the answer."""

import json
import os
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read at its import

import django
import numpy as np
import onnxruntime
import orjson
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY=os.urandom(16).hex(), MIDDLEWARE=[])
django.setup()

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
model = Path(os.environ["MODELS"]) / f"{os.environ['MODEL']}.onnx"
session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
feature = session.get_inputs()[0].name
label = session.get_outputs()[0].name
dtype = np.float64 if "double" in session.get_inputs()[0].type else np.float32


def predict(request: HttpRequest) -> HttpResponse:
    """The labels of the rows in a body."""
    rows = np.asarray(orjson.loads(request.body)["rows"], dtype)
    labels = session.run([label], {feature: rows})[0]
    return HttpResponse(json.dumps({"predictions": labels.tolist()}), content_type="application/json")


urlpatterns = [path("predict", predict)]
application = get_wsgi_application()
