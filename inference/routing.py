"""Which version answers a request: one that serves, or the one the request names.

What is routed by is remembered in the process (`tenants.tables`), so that a warm request asks nobody.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import Conflict, Invalid, Malformed, NotFound
from inference.served import Served
from models_registry.history import routing_of
from models_registry.models import Deployment, ModelVersion, RegisteredModel, is_name
from models_registry.routing import Routing
from models_registry.selection import metric_value
from tenants.scope import current_tenant
from tenants.tables import Table

METRICS = ("metrics_reported", "metrics_measured")
REMEMBERED = 100_000  # in `Served.weight`


@dataclass(frozen=True)
class Route:
    """A version that may answer, the lane that its model's deployment asks for (None: the platform's default), and the
    version that is asked the same in its shadow."""

    model_name: str
    version: Served
    lane: str | None = None
    shadow: Served | None = None


@dataclass(frozen=True)
class Deployed:
    """Where a model's requests go, with every version that they may reach, by its number."""

    routing: Routing
    versions: Mapping[int, Served]

    @property
    def weight(self) -> int:
        """How much there is to remember."""
        return 1 + sum(version.weight for version in self.versions.values())


# By the tenant's schema, which notifications name, the model's name, and what a request names besides.
DEPLOYED: Table[tuple[str, str], Deployed] = Table(
    "registry", tag_of=lambda key, _: key[0], weigh=lambda deployed: deployed.weight, most=REMEMBERED
)
VERSIONS: Table[tuple[str, str, str, str | int], Served] = Table(
    "registry", tag_of=lambda key, _: key[0], weigh=lambda version: version.weight, most=REMEMBERED
)
DEFAULTS: Table[str, str] = Table("registry", tag_of=lambda schema_name, _: schema_name, most=10_000)


def route(model_name: str | None, body: Mapping[str, Any], routing_key: str | None = None) -> Route:
    """The version for this model (or the tenant's default model) and the selectors in the body.

    body: checked by `bodies.parse`, so each selector is of its type.
    routing_key: whose requests all go to the same version of a split.

    Raises:
        NotFound: no such model, version or alias.
        Conflict: nothing serves, or the version named is not ready.
        Malformed: more than one selector.
    """
    named = [selector for selector in SELECTORS if body.get(selector) is not None]
    if len(named) > 1:
        raise Malformed(f"Send at most one of {', '.join(SELECTORS)}.", code="ambiguous_body")
    name = model_name or default_model()
    if not named:
        return _serving(name, routing_key)
    return Route(name, SELECTORS[named[0]](name, body[named[0]]))


def default_model() -> str:
    """The name of the tenant's default model: the one it set, or its only one that serves.

    Raises:
        Conflict: it set none, and none or several serve.
    """
    tenant = current_tenant()
    name = tenant.default_model or DEFAULTS.get(tenant.schema_name, _only_serving)
    if not name:
        raise Conflict("Set the default model in the settings, or name a model in the path.", code="no_default_model")
    return name


def _only_serving() -> str | None:
    serving = Deployment.objects.filter(activation__version__isnull=False).values_list("model__name", flat=True)[:2]
    return serving[0] if len(serving) == 1 else None


def _serving(name: str, routing_key: str | None) -> Route:
    deployed = DEPLOYED.get((current_tenant().schema_name, name), lambda: _deployed(name))
    if deployed is None:
        _model(name)
        raise Conflict(f"No version of {name} is active; activate one first.", code="no_active_version")
    routing, versions = deployed.routing, deployed.versions
    shadow = versions[routing.shadow.version] if routing.shadow and routing.is_shadowed() else None
    return Route(name, versions[routing.choose(routing_key, name)], routing.lane, shadow)


def _deployed(name: str) -> Deployed | None:
    """What serves for a model, if there is one and something does."""
    deployment = Deployment.objects.select_related("activation").filter(model__name=name).first()
    routing = routing_of(deployment.activation if deployment else None)
    if deployment is None or not routing.split:
        return None
    found = ModelVersion.objects.filter(model=deployment.model_id, number__in=routing.versions)
    return Deployed(routing, {version.number: Served.of(version) for version in found})


def _model(name: str) -> RegisteredModel:
    model = RegisteredModel.objects.filter(name=name).first()
    if model is None:
        raise NotFound(f"There is no model '{name[:100]}'.")
    return model


def _by_number(model_name: str, number: int) -> Served:
    if number < 1:
        raise Invalid("A version is a whole number above zero.", fields={"version": str(number)[:40]})

    def load() -> Served:
        model = _model(model_name)
        version = model.versions.filter(number=min(number, 2**31 - 1)).first()
        if version is None:
            raise NotFound(f"{model_name} has no version {number}.")
        return _ready(version)

    return _remembered("version", model_name, number, load)


def _by_alias(model_name: str, name: str) -> Served:
    def load() -> Served:
        aliases = _model(model_name).aliases.select_related("version__model").filter(name=name)
        alias = aliases.first() if is_name(name) else None
        if alias is None:
            raise NotFound(f"{model_name} has no alias '{name[:100]}'.")
        return _ready(alias.version)

    return _remembered("alias", model_name, name, load)


def _by_metric(model_name: str, select: Mapping[str, Any]) -> Served:
    if not isinstance(select.get("metric"), str):
        raise Invalid('select is {"metric": name, "direction": "max" or "min"}.', fields={"select": "metric"})
    direction = select.get("direction", "max")
    if direction not in ("max", "min"):
        raise Invalid("direction is max or min.", fields={"select.direction": str(direction)[:40]})
    metric = select["metric"]
    scored = [
        (value, number)
        for number, reported, measured in _model(model_name).versions.ready().values_list("number", *METRICS)
        if (value := metric_value(measured.get(metric, reported.get(metric)))) is not None
    ]
    if not scored:
        raise Conflict(f"No ready version of {model_name} has the metric '{metric[:100]}'.", code="no_such_metric")
    sign = 1 if direction == "max" else -1
    return _by_number(model_name, max(scored, key=lambda entry: (sign * entry[0], entry[1]))[1])


def _remembered(kind: str, model_name: str, name: str | int, load: Callable[[], Served]) -> Served:
    found = VERSIONS.get((current_tenant().schema_name, model_name, kind, name), load)
    assert found is not None  # `load` raises where there is none
    return found


def _ready(version: ModelVersion) -> Served:
    if not version.is_ready:
        raise Conflict(
            f"Version {version.number} of {version.model.name} is {version.state}, not ready.",
            code="version_not_ready",
        )
    return Served.of(version)


SELECTORS: Mapping[str, Callable[[str, Any], Served]] = {
    "version": _by_number,
    "alias": _by_alias,
    "select": _by_metric,
}
