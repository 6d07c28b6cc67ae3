"""The parameters of a search's next trial, from the rows of those before it."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.search_requests import DIMENSION, grid_point

STARTUP_TRIALS = 5  # the first ones of a Bayesian search are random


@dataclass(frozen=True)
class Tried:
    """A trial that was asked for. value: of the search's metric; None while it runs, and where it failed.

    pruned_at: the step at which it was given up, and had that value; None where it was not.
    """

    params: Mapping[str, Any]
    value: float | None
    has_ended: bool
    pruned_at: int | None = None


def suggest(search: Mapping[str, Any], number: int, before: Sequence[Tried]) -> dict[str, Any]:
    """The parameters of the trial of this number, from 0 on. The same trials before it give the same ones again."""
    space = search["space"]
    if search["method"] == "grid":
        return grid_point(space, number)
    if search["method"] == "random":
        return _random(space, random.Random(f"{search['seed']}/{number}"))  # noqa: S311 (no secret)
    return _bayesian(search, number, before)


def _random(space: Mapping[str, Any], source: random.Random) -> dict[str, Any]:
    params = {}
    for name, told in space.items():
        dimension = DIMENSION.validate_python(told)
        params[name] = source.choice(dimension) if isinstance(dimension, list) else dimension.drawn(source.random())
    return params


def _bayesian(search: Mapping[str, Any], number: int, before: Sequence[Tried]) -> dict[str, Any]:
    """By Optuna's tree-structured Parzen estimator; trials under way count as bad, so that none is asked for twice."""
    import optuna  # heavy, and only this needs it
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lists = {name: told for name, told in search["space"].items() if isinstance(told, list)}
    spaces: dict[str, BaseDistribution] = {}
    for name, told in search["space"].items():
        dimension = DIMENSION.validate_python(told)
        if isinstance(dimension, list):
            spaces[name] = CategoricalDistribution(tuple(range(len(dimension))))  # values may be lists, too
        elif dimension.is_whole:
            spaces[name] = IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
        else:
            spaces[name] = FloatDistribution(float(dimension.low), float(dimension.high), log=dimension.log)
    sampler = optuna.samplers.TPESampler(
        seed=(search["seed"] + number) % 2**32, n_startup_trials=STARTUP_TRIALS, constant_liar=True
    )
    study = optuna.create_study(direction="minimize" if search["direction"] == "min" else "maximize", sampler=sampler)
    for tried in before:
        known = {name: lists[name].index(value) if name in lists else value for name, value in tried.params.items()}
        if not tried.has_ended:
            study.add_trial(create_trial(state=TrialState.RUNNING, params=known, distributions=spaces))
        elif tried.value is not None and tried.pruned_at is not None:
            so_far = {tried.pruned_at: tried.value}
            study.add_trial(
                create_trial(state=TrialState.PRUNED, params=known, distributions=spaces, intermediate_values=so_far)
            )
        elif tried.value is not None:
            study.add_trial(create_trial(value=tried.value, params=known, distributions=spaces))
    asked = study.ask(spaces).params
    return {name: lists[name][value] if name in lists else value for name, value in asked.items()}
