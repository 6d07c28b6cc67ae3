"""One training for many tenants, over HTTP, for operators."""

import uuid
from typing import Any

from django.urls import path, reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.errors import Denied, Invalid, NotFound, PlatformError
from common.http import accepted
from tenants.authentication import Caller, caller_of
from tenants.idempotency import KEY, fingerprint
from tenants.models import Scope, Tenant, TenantState
from tenants.operations import LOCATION
from tenants.permissions import IsOperator
from tenants.scope import tenant_scope
from tenants.serializers import Strict, checked
from training import services
from training.models import HEAVY, Run
from training.run_requests import RunRequest, check_form
from training.serializers import ActivateIfField, ValidationField

MOST_TENANTS = 1_000
GROUPS = uuid.UUID("6f0d0c1e-6f3a-5d0e-9a57-3f1c5b8d2a44")
REPEATED = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
    OpenApiParameter.HEADER,
    description="The same key and body are the same runs, however often they are sent.",
)


class ManyRunsRequestSerializer(Strict):
    """One run for each of these tenants, on its own dataset of this name."""

    tenants = serializers.ListField(child=serializers.CharField(max_length=40), min_length=1, max_length=MOST_TENANTS)
    trainer = serializers.CharField(max_length=100)
    dataset = serializers.CharField(max_length=100)
    target = serializers.CharField(max_length=250, trim_whitespace=False)
    model = serializers.CharField(max_length=100)
    params = serializers.DictField(required=False)
    validation = ValidationField(required=False)
    activate_if = ActivateIfField(required=False, allow_null=True, allow_empty=False)
    experiment = serializers.CharField(max_length=250, required=False)


class TenantRunSerializer(serializers.Serializer[Any]):
    """What became of it in one tenant. error: why there is no run, or why it failed."""

    tenantId = serializers.CharField()
    run = serializers.UUIDField(allow_null=True)
    state = serializers.CharField()
    metrics = serializers.DictField(child=serializers.FloatField())
    version = serializers.IntegerField(allow_null=True)
    activation = serializers.CharField(allow_null=True)
    error = serializers.CharField(allow_blank=True)


class ManyRunsSerializer(serializers.Serializer[Any]):
    """One report of all runs that were begun together. counts: how many are in each state."""

    id = serializers.UUIDField()
    counts = serializers.DictField(child=serializers.IntegerField())
    results = TenantRunSerializer(many=True)


class ManyRunsView(APIView):
    """Beginning the same run in many tenants."""

    permission_classes = (IsOperator,)
    scopes = {"POST": Scope.ADMIN}

    @extend_schema(
        parameters=[LOCATION, REPEATED], request=ManyRunsRequestSerializer, responses={202: ManyRunsSerializer}
    )
    def post(self, request: Request) -> Response:
        """Queue a run in each tenant; where it cannot be carried out, the report says why, and the others go on.

        The same body under the same `Idempotency-Key` begins no second run in any tenant: it goes on where the first
        request stopped.
        """
        caller, asked = caller_of(request), checked(ManyRunsRequestSerializer, request.data)
        names = list(dict.fromkeys(asked.pop("tenants")))
        wanted = RunRequest(**asked)
        check_form(wanted)
        known = {tenant.tenant_id: tenant for tenant in caller.tenants().filter(tenant_id__in=names)}
        group = _group(request, caller)
        results = [_begin(known.get(name), name, wanted, caller, group) for name in names]
        return accepted(_report(group, results), reverse("many-runs-report", args=[group]))


class ManyRunsReportView(APIView):
    """What became of runs that were begun together."""

    permission_classes = (IsOperator,)
    scopes = {"GET": Scope.READ}

    @extend_schema(responses=ManyRunsSerializer)
    def get(self, request: Request, group_id: uuid.UUID) -> Response:
        """The runs in all tenants that the caller's token is for."""
        results = [row for tenant in caller_of(request).tenants() for row in _rows(tenant, group_id)]
        if not results:
            raise NotFound("There are no runs that were begun under this id.")
        return Response(_report(group_id, results))


def _group(request: Request, caller: Caller) -> uuid.UUID:
    """The id of what is begun together: a new one, or the one that this request had before."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return uuid.uuid4()
    if not KEY.fullmatch(key):
        raise Invalid("An Idempotency-Key is 1 to 200 visible ASCII characters.", fields={"Idempotency-Key": key[:60]})
    return uuid.uuid5(GROUPS, "\n".join([caller.identity, key, fingerprint(request.data)]))


def _begin(tenant: Tenant | None, name: str, asked: RunRequest, caller: Caller, group: uuid.UUID) -> dict[str, Any]:
    try:
        if tenant is None:
            raise NotFound("There is no such tenant.")
        if tenant.state != TenantState.ACTIVE:
            raise Denied("The tenant is suspended.", code="tenant_suspended")
        with tenant_scope(tenant):
            return _row(tenant, services.submit_run_once(request=asked, actor=caller.name, group=group))
    except PlatformError as error:
        told = "; ".join([error.message, *(f"{path}: {fault}" for path, fault in error.fields.items())])
        return _nothing(name) | {"error": told}


def _rows(tenant: Tenant, group: uuid.UUID) -> list[dict[str, Any]]:
    if tenant.state == TenantState.DELETING:
        return []
    with tenant_scope(tenant):
        runs = Run.objects.filter(group=group).select_related("job", "version").defer(*HEAVY[:3])
        return [_row(tenant, run) for run in runs]


def _row(tenant: Tenant, run: Run) -> dict[str, Any]:
    return _nothing(tenant.tenant_id) | {
        "run": str(run.pk),
        "state": run.state,
        "metrics": run.metrics,
        "version": run.version.number if run.version else None,
        "activation": (run.activation_decision or {}).get("state"),
        "error": run.job.error_message if run.job else "",
    }


def _nothing(name: str) -> dict[str, Any]:
    return {
        "tenantId": name,
        "run": None,
        "state": "refused",
        "metrics": {},
        "version": None,
        "activation": None,
        "error": "",
    }


def _report(group: uuid.UUID, results: list[dict[str, Any]]) -> dict[str, Any]:
    states = [row["state"] for row in results]
    return {"id": str(group), "counts": {state: states.count(state) for state in sorted({*states})}, "results": results}


operator_api_urlpatterns = [
    path("runs", ManyRunsView.as_view(), name="many-runs"),
    path("runs/<uuid:group_id>", ManyRunsReportView.as_view(), name="many-runs-report"),
]
