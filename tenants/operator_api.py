"""Tenants over HTTP, for operators, outside any tenant's address."""

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.urls import path, reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.errors import Denied
from common.queries import text_asked
from tenants import services
from tenants.api import WhoAmIView
from tenants.authentication import caller_of
from tenants.models import Scope, Tenant, TenantState
from tenants.operations import LOCATION, REFUSED
from tenants.permissions import IsOperator
from tenants.serializers import (
    ProvisionedSerializer,
    TenantChangeSerializer,
    TenantRequestSerializer,
    TenantSerializer,
    checked,
)

OPERATORS = {"GET": Scope.READ, "POST": Scope.ADMIN, "PATCH": Scope.ADMIN, "DELETE": Scope.ADMIN}


class TenantsView(ListAPIView[Tenant]):
    """The tenants that the operator's token is for.

    A tenantId is taken once, so making a tenant needs no Idempotency-Key: a repeated request answers 409.
    """

    permission_classes = (IsOperator,)
    scopes = OPERATORS
    serializer_class = TenantSerializer
    order_fields = ("tenant_id", "-created_at")

    def get_queryset(self) -> QuerySet[Tenant]:
        found = caller_of(self.request).tenants().prefetch_related("domains")
        state = text_asked(self.request, "state", TenantState.values)
        return found.filter(state=state) if state else found

    @extend_schema(parameters=[OpenApiParameter("state", str, enum=TenantState.values)])
    def get(self, request: Request, *args: object, **kwargs: object) -> Response:
        return super().get(request, *args, **kwargs)

    @extend_schema(
        parameters=[LOCATION],
        request=TenantRequestSerializer,
        responses={201: ProvisionedSerializer, 409: REFUSED},
    )
    def post(self, request: Request) -> Response:
        """Make a tenant with its schema, its first admin and a first token."""
        caller, asked = caller_of(request), checked(TenantRequestSerializer, request.data)
        if not caller.reaches_all:
            raise Denied("Making a tenant needs a token for all tenants.", code="operator_required")
        made = services.provision_tenant(**({"name": asked["tenant_id"]} | asked), actor=caller.name)
        tenant_id = made.tenant.tenant_id
        body = {
            "tenantId": tenant_id,
            "admin": {"email": made.admin.email, "password": made.admin_password},
            "token": made.token,
        }
        return Response(body, status=201, headers={"Location": reverse("tenant", args=[tenant_id])})


class TenantView(APIView):
    """One tenant."""

    permission_classes = (IsOperator,)
    scopes = OPERATORS

    @extend_schema(responses=TenantSerializer)
    def get(self, request: Request, tenant_id: str) -> Response:
        return Response(TenantSerializer(_tenant(request, tenant_id)).data)

    @extend_schema(request=TenantChangeSerializer, responses={200: TenantSerializer, 409: REFUSED})
    def patch(self, request: Request, tenant_id: str) -> Response:
        tenant, actor = _tenant(request, tenant_id), caller_of(request).name
        changes = checked(TenantChangeSerializer, request.data)
        state = changes.pop("state", None)
        if changes:
            services.update_tenant(tenant=tenant, changes=changes, actor=actor)
        if state:
            services.set_suspended(tenant=tenant, suspended=state == TenantState.SUSPENDED, actor=actor)
        return Response(TenantSerializer(tenant).data)

    @extend_schema(
        parameters=[OpenApiParameter("confirm", str, required=True, description="The tenantId once more.")],
        responses={204: None},
        description="Delete the tenant for good: its schema, its files, its rows.",
    )
    def delete(self, request: Request, tenant_id: str) -> Response:
        confirm = request.query_params.get("confirm", "")
        services.delete_tenant(tenant=_tenant(request, tenant_id), confirm=confirm, actor=caller_of(request).name)
        return Response(status=204)


def _tenant(request: Request, tenant_id: str) -> Tenant:
    return get_object_or_404(caller_of(request).tenants().prefetch_related("domains"), tenant_id=tenant_id)


operator_api_urlpatterns = [
    path("whoami", WhoAmIView.as_view(), name="whoami"),
    path("tenants", TenantsView.as_view(), name="tenants"),
    path("tenants/<str:tenant_id>", TenantView.as_view(), name="tenant"),
]
