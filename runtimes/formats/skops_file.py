"""scikit-learn models in skops files."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping

import skops.io

from runtimes.errors import plain
from runtimes.formats.scikit_learn import Loaded, PickledModel, checked
from runtimes.protocol import Runtime, Source

NAMED_TYPES = 5


class SkopsModel(PickledModel):
    """A skops file. Types that skops does not know are let through with a warning: the runner confines them."""

    name = "skops"

    def read(self, source: Source) -> Loaded:
        """Build the estimator from its tree and refuse what cannot predict."""
        started = time.monotonic()
        data = source.bundle.read(source.path)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            unknown = skops.io.get_untrusted_types(data=data)
            model = skops.io.loads(data, trusted=unknown)
        loaded = checked(model, caught, time.monotonic() - started)
        if unknown:
            names = ", ".join(plain(name, 60) for name in unknown[:NAMED_TYPES])
            loaded.warnings.append(f"The file holds types that skops does not know: {names}.")
        return loaded


RUNTIMES: Mapping[str, Runtime] = {"skops": SkopsModel()}
