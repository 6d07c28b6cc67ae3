"""A detector of what lies on page images."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from runtimes.trainers.trainer import Fitted, Trainer, TrainerParams, Watch


class PageDetectorParams(TrainerParams):
    """Parameters of a page detector."""

    epochs: int = Field(default=30, ge=1, le=1_000, description="How often it sees every page.")
    most_seconds: float = Field(
        default=240.0,
        gt=0,
        le=86_400,
        description="The time after which it stops, having slowed its steps down before.",
    )
    longest_side: int = Field(
        default=384, ge=128, le=2_048, multiple_of=32, description="Pages are made so small before it looks at them."
    )
    width: int = Field(default=16, ge=8, le=128, multiple_of=8, description="How many channels its first layers have.")
    batch_size: int = Field(default=4, ge=1, le=64, description="The pages of one step.")
    learning_rate: float = Field(default=0.004, gt=0, le=1, description="How long the longest step is (AdamW).")
    threads: int = Field(default=2, ge=1, le=16, description="How many cores it may use at once.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Of the random numbers.")


class PageDetectorTrainer(Trainer):
    """A small convolutional detector of boxes on page images, trained on a COCO zip (torch)."""

    name = "page_detector"
    title = "Page detector (boxes on images)"
    task = "detection"
    Params = PageDetectorParams
    library_set = "torch"
    requires = ("torch", "PIL")

    def fit(self, features: Any, target: Any, watch: Watch) -> Fitted:
        """Nothing: it fits images, not tables; a runner calls `runtimes.detector_fitting` for it."""
        raise ValueError("this trainer takes images with annotations, and no table")
