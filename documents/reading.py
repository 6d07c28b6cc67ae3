"""Reading one page: drawn by a confined runner, looked at by the detection model, and what that says checked."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from django.conf import settings

from common.errors import Invalid, PlatformError, TimedOut, Unavailable
from documents.models import Document, DocumentPage
from documents.page_files import PageRead
from inference import predictions
from inference.served import Served
from models_registry.blobs import local_copy
from runtimes import errors as faults
from runtimes.client import HostClient, Prediction
from runtimes.detection import detections_of
from runtimes.page_work import Document as OpenDocument

TRIES = 5
PAUSE_S = 0.5
PASSING = (faults.HostUnavailable, faults.PoolFull, faults.ConfinementUnavailable)
CRASHED = faults.RunnerDied.code


class PageFault(Exception):
    """A page cannot be read, and why; other pages may be. is_broken: the runner that draws is gone, too."""

    def __init__(self, code: str, message: str, *, is_broken: bool = False, may_pass: bool = False) -> None:
        super().__init__(message)
        self.code, self.message, self.is_broken, self.may_pass = code, message, is_broken, may_pass


@contextmanager
def opened(document: Document) -> Iterator[OpenDocument]:
    """The document in a confined runner of its own, which ends with the block.

    Raises:
        Invalid: the file is no document that can be read; the sentence says why. Unavailable: not at the moment.
    """
    source = document.source.files.select_related("blob").get(path=document.source_path)
    client = HostClient(settings.MODELS_SOCKET)
    with (
        local_copy(source) as descriptor,
        _faults_as_errors(),
        client.open_document(document_fd=descriptor, media_type=document.media_type) as pages,
    ):
        yield pages


@contextmanager
def _faults_as_errors() -> Iterator[None]:
    try:
        yield
    except faults.RuntimeFault as fault:
        raise error_of(fault) from fault


def error_of(fault: faults.RuntimeFault) -> PlatformError:
    """The error that ends a document's job, or has it tried again, for what its runner raised."""
    match fault:
        case faults.ModelError():
            return Invalid(fault.message, code=fault.code)
        case faults.DeadlineExceeded():
            return TimedOut(f"Opening the document took longer than it may: {fault.message}", code="document_too_long")
        case _:
            return Unavailable(fault.message, code=fault.code)


class Reader:
    """Reads pages with one version of a model. is_over: whether nobody wants the pages any more."""

    def __init__(self, document: Document, version: Served, *, is_over: Callable[[], bool]) -> None:
        self._document, self._version, self._is_over = document, version, is_over
        self._classes = tuple(version.signature.classes or ())

    def read(self, pages: OpenDocument, page: DocumentPage) -> PageRead:
        """The page's image and what is on it.

        Raises:
            PageFault: this page cannot be read. Unavailable: no page can be, at the moment.
            Conflict: the version is gone, or cannot be loaded.
        """
        try:
            image = pages.render(page.number - 1, dpi=self._document.dpi)
        except PASSING as fault:
            raise Unavailable(fault.message, code=fault.code) from fault
        except faults.ModelError as fault:
            raise PageFault(fault.code, fault.message) from fault
        except faults.DeadlineExceeded as fault:
            raise PageFault(fault.code, "Drawing the page took longer than it may.", is_broken=True) from fault
        except faults.RuntimeFault as fault:
            raise PageFault(fault.code, fault.message, is_broken=True, may_pass=True) from fault
        answer = self._ask(image.rgb[np.newaxis])
        try:
            found = detections_of(answer, self._classes, self._document.min_score, image.rgb.shape[:2])
        except faults.ModelError as fault:
            raise PageFault(fault.code, fault.message) from fault
        return PageRead(image, found)

    def _ask(self, rows: np.ndarray) -> Prediction:
        """The model's answer to one image, asked again while what is in the way may pass."""
        for attempt in range(1, TRIES + 1):
            deadline = time.monotonic() + settings.PREDICTION_DEADLINE_S
            try:
                return predictions.predict_batch(self._version, rows, probabilities=False, deadline=deadline)
            except Invalid as error:
                raise PageFault(error.code, error.message) from error
            except TimedOut as error:
                told = f"The model took longer than {settings.PREDICTION_DEADLINE_S:g} s for this page."
                raise PageFault(error.code, told) from error
            except Unavailable as error:
                if attempt == TRIES and error.code == CRASHED:
                    raise PageFault(CRASHED, "The model crashed on this page, however often it was asked.") from error
                if attempt == TRIES or self._is_over():
                    raise
                time.sleep(PAUSE_S * 2 ** (attempt - 1))
        raise AssertionError("unreachable")
