"""detectron2 models: weights in a `.pth` or `.pkl` file, with the configuration that they were trained by.

They need a library set of their own, which an operator declares. Until the adapter that turns pages into detections is
there, such an upload is understood, vetted and then refused; nothing pretends to predict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtimes.errors import ArtifactRejected
from runtimes.formats import detectron2_config
from runtimes.protocol import Findings, OnStage, Predictor, Runtime, Source


class Detectron2Model(Runtime):
    """Weights with a detectron2 configuration."""

    name = "detectron2"
    library_set = "detectron2"

    def load(self, source: Source) -> Predictor:
        """Raises what `inspect` raises."""
        raise _not_yet(source)

    def inspect(self, source: Source, on_stage: OnStage) -> Findings:
        """Raises an ArtifactRejected: for the configuration, or because detections cannot be served yet."""
        on_stage("reading the configuration")
        raise _not_yet(source)


def _not_yet(source: Source) -> ArtifactRejected:
    config: dict[str, Any] = detectron2_config.read(source.bundle, source.options["config"])
    name = config["MODEL"]["META_ARCHITECTURE"]
    return ArtifactRejected("unsupported_format", f"A detectron2 {name} cannot be served yet.")


RUNTIMES: Mapping[str, Runtime] = {"detectron2": Detectron2Model()}
