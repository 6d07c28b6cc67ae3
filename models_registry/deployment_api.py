"""What serves, over HTTP: activating, splitting, mirroring, going back, and the history of it."""

from typing import Any

from django.db.models import QuerySet
from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from models_registry import deployments, services
from models_registry.api import found_model, found_version
from models_registry.deployment_serializers import DeploymentChangeSerializer, DeploymentSerializer
from models_registry.models import Activation, RegisteredModel
from models_registry.serializers import ActivateSerializer, ActivationSerializer, ReasonSerializer
from tenants.authentication import caller_of
from tenants.models import Scope
from tenants.operations import REFUSED
from tenants.serializers import checked


class ActivateView(APIView):
    """What serves, set to a version."""

    scopes = {"POST": Scope.ADMIN}

    @extend_schema(request=ActivateSerializer, responses={200: ActivationSerializer, 409: REFUSED})
    def post(self, request: Request, name: str, number: int) -> Response:
        """Have this version serve. Where it does already, nothing changes and the present activation is the answer."""
        activation = services.activate(
            version=found_version(name, number),
            actor=caller_of(request).name,
            **checked(ActivateSerializer, request.data),
        )
        return Response(ActivationSerializer(activation).data)


class DeactivateView(APIView):
    """What serves, set to nothing."""

    scopes = {"POST": Scope.ADMIN}

    @extend_schema(request=ActivateSerializer, responses={200: ActivationSerializer, 409: REFUSED})
    def post(self, request: Request, name: str) -> Response:
        """Take the model out of service."""
        body = checked(ActivateSerializer, request.data)
        activation = services.deactivate(model=found_model(name), actor=caller_of(request).name, **body)
        return Response(ActivationSerializer(activation).data)


class RollbackView(APIView):
    """What serves, set back."""

    scopes = {"POST": Scope.ADMIN}

    @extend_schema(request=ReasonSerializer, responses={200: ActivationSerializer, 409: REFUSED})
    def post(self, request: Request, name: str) -> Response:
        """Have the version serve that served before."""
        body = checked(ReasonSerializer, request.data)
        activation = services.rollback(model=found_model(name), actor=caller_of(request).name, **body)
        return Response(ActivationSerializer(activation).data)


class ActivationsView(ListAPIView[Activation]):
    """The history of what served."""

    serializer_class = ActivationSerializer
    order_fields = ("-number",)

    def get_queryset(self) -> QuerySet[Activation]:
        return Activation.objects.select_related("model").filter(model=found_model(self.kwargs["name"]))


class DeploymentView(APIView):
    """Where a model's requests go."""

    scopes = {"PATCH": Scope.ADMIN}

    @extend_schema(responses=DeploymentSerializer)
    def get(self, request: Request, name: str) -> Response:
        """Show it."""
        return Response(deployment_body(found_model(name)))

    @extend_schema(request=DeploymentChangeSerializer, responses={200: DeploymentSerializer, 409: REFUSED})
    def patch(self, request: Request, name: str) -> Response:
        """Change some of it, by a new activation. Where nothing would change, none is added."""
        model = found_model(name)
        body = DeploymentChangeSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        deployments.change_deployment(model=model, actor=caller_of(request).name, **body.changes())
        return Response(deployment_body(model))


def deployment_body(model: RegisteredModel) -> dict[str, Any]:
    """A model's deployment as `DeploymentSerializer` describes it."""
    activation, routing = deployments.state_of(model)
    return {
        "model": model.name,
        "activation": activation.number if activation else 0,
        "version": routing.version,
        "split": [share.to_json() for share in routing.split],
        "shadow": routing.shadow.to_json() if routing.shadow else None,
        "lane": routing.lane,
        "pinned": routing.is_pinned,
        "limits": dict(routing.limits),
        "reason": activation.reason if activation else "",
        "actor": activation.actor if activation else "",
        "since": activation.created_at if activation else None,
    }


api_urlpatterns = [
    path("models/<str:name>/versions/<int:number>/activate", ActivateView.as_view(), name="version-activate"),
    path("models/<str:name>/deactivate", DeactivateView.as_view(), name="model-deactivate"),
    path("models/<str:name>/rollback", RollbackView.as_view(), name="model-rollback"),
    path("models/<str:name>/activations", ActivationsView.as_view(), name="model-activations"),
    path("models/<str:name>/deployment", DeploymentView.as_view(), name="model-deployment"),
]
