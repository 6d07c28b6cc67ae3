"""Models, versions and aliases, over HTTP."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, QueryDict, StreamingHttpResponse
from django.urls import path, reverse
from django.utils.datastructures import MultiValueDict
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.errors import NotFound
from common.queries import text_asked
from models_registry import downloads, services
from models_registry.metadata import storable_fault
from models_registry.models import (
    Alias,
    ModelVersion,
    RegisteredModel,
    VersionState,
    is_name,
)
from models_registry.quota import check_announced
from models_registry.serializers import (
    ActivateBestSerializer,
    AliasSerializer,
    AliasTargetSerializer,
    BestSerializer,
    FilesSerializer,
    ModelChangeSerializer,
    ModelCreateSerializer,
    ModelSerializer,
    UploadSerializer,
    VersionChangeSerializer,
    VersionSerializer,
    VersionSummarySerializer,
)
from models_registry.uploads import FolderUploadParser, incoming_files, metadata_of
from tenants.authentication import caller_of
from tenants.idempotency import Idempotent
from tenants.job_api import await_end, wait_asked
from tenants.models import Scope
from tenants.operations import LOCATION, REFUSED, WAIT
from tenants.serializers import checked

BINARY = {(200, "application/octet-stream"): OpenApiTypes.BINARY}
ZIPPED = {(200, "application/zip"): OpenApiTypes.BINARY}


def found_model(name: str) -> RegisteredModel:
    """The model of this name, with its standing.

    Raises:
        NotFound: there is none.
    """
    model = RegisteredModel.objects.with_standing().filter(name=name).first() if is_name(name) else None
    if model is None:
        raise NotFound(f"There is no model '{name[:100]}'.")
    return model


def found_version(name: str, number: int) -> ModelVersion:
    """A model's version, with its standing.

    Raises:
        NotFound: there is no such model or version.
    """
    versions = ModelVersion.objects.with_standing()
    version = versions.filter(model__name=name, number=number).first() if is_name(name) else None
    if version is None:
        raise NotFound(f"There is no version {str(number)[:20]} of a model '{name[:100]}'.")
    return version


def found_alias(name: str, alias: str) -> Alias:
    """A model's alias.

    Raises:
        NotFound: there is none of this name.
    """
    aliases = Alias.objects.select_related("model", "version__model")
    found = aliases.filter(model__name=name, name=alias).first() if is_name(name) and is_name(alias) else None
    if found is None:
        raise NotFound(f"There is no alias '{alias[:100]}' of a model '{name[:100]}'.")
    return found


class AnyAccept(BaseContentNegotiation):
    """For answers that are files: whatever the client accepts, it gets the file (and errors as JSON)."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return next((parser for parser in parsers if parser.media_type == request.content_type), None)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type


class ModelsView(Idempotent, ListAPIView[RegisteredModel]):
    """The tenant's registered models."""

    scopes = {"POST": Scope.WRITE}
    serializer_class = ModelSerializer
    order_fields = ("name", "created_at", "updated_at")

    def get_queryset(self) -> QuerySet[RegisteredModel]:
        models = RegisteredModel.objects.with_standing()
        if task := text_asked(self.request, "task"):
            models = models.filter(task=task)
        if part := text_asked(self.request, "name"):
            models = models.filter(name__icontains=part)
        return models

    @extend_schema(
        parameters=[
            OpenApiParameter("task", str, description="Only models of this task."),
            OpenApiParameter("name", str, description="Only models with this in their names, in any case."),
        ]
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List them by name, or as `order_by` says."""
        return super().get(request, *args, **kwargs)

    @extend_schema(parameters=[LOCATION], request=ModelCreateSerializer, responses={201: ModelSerializer})
    def post(self, request: Request) -> Response:
        """Make one, without versions."""
        model = services.create_model(actor=caller_of(request).name, **checked(ModelCreateSerializer, request.data))
        location = reverse("model", args=[model.name])
        return Response(ModelSerializer(found_model(model.name)).data, status=201, headers={"Location": location})


class ModelView(APIView):
    """One registered model."""

    scopes = {"PATCH": Scope.WRITE, "DELETE": Scope.ADMIN}

    @extend_schema(responses=ModelSerializer)
    def get(self, request: Request, name: str) -> Response:
        """Show it."""
        return Response(ModelSerializer(found_model(name)).data)

    @extend_schema(request=ModelChangeSerializer, responses=ModelSerializer)
    def patch(self, request: Request, name: str) -> Response:
        """Change its description, task or tags."""
        model, changes = found_model(name), checked(ModelChangeSerializer, request.data)
        services.change_model(model=model, actor=caller_of(request).name, **changes)
        return Response(ModelSerializer(found_model(name)).data)

    @extend_schema(responses={204: None, 409: REFUSED})
    def delete(self, request: Request, name: str) -> Response:
        """Delete it with all its versions; 409 while one serves or an open job uses one."""
        services.delete_model(model=found_model(name), actor=caller_of(request).name)
        return Response(status=204)


class VersionsView(Idempotent, ListAPIView[ModelVersion]):
    """The versions of a model."""

    scopes = {"POST": Scope.WRITE}
    serializer_class = VersionSummarySerializer
    parser_classes = (FolderUploadParser,)
    order_fields = ("-number", "created_at")

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        # A session's CSRF check looks for its token in request.POST before it looks into the header. That would read
        # the body before its size was judged, and without its folders.
        if request.method == "POST":
            request._post, request._files = QueryDict(), MultiValueDict()  # type: ignore[attr-defined]
        return super().initialize_request(request, *args, **kwargs)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method == "POST":  # before a byte of the body is read
            found_model(self.kwargs["name"])
            check_announced(int(request.META.get("CONTENT_LENGTH") or 0))

    def get_queryset(self) -> QuerySet[ModelVersion]:
        versions = ModelVersion.objects.with_standing().filter(model=found_model(self.kwargs["name"]))
        for name, choices in (("state", tuple(VersionState.values)), ("format", ()), ("task", ())):
            if value := text_asked(self.request, name, choices):
                versions = versions.filter(**{name: value})
        return versions.light()

    @extend_schema(
        parameters=[
            OpenApiParameter("state", str, enum=VersionState.values, description="Only versions in this state."),
            OpenApiParameter("format", str, description="Only versions of this file format."),
            OpenApiParameter("task", str, description="Only versions for this task."),
        ]
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List them, the newest first, or as `order_by` says."""
        return super().get(request, *args, **kwargs)

    @extend_schema(
        parameters=[LOCATION],
        request={"multipart/form-data": UploadSerializer},
        responses={201: VersionSerializer},
    )
    def post(self, request: Request, name: str) -> Response:
        """Upload the next version; it is then inspected, which `?wait=` on its own page waits for."""
        metadata = metadata_of(request)
        with incoming_files(request) as files:
            version = services.register_version(
                model_name=name, files=files, metadata=metadata, actor=caller_of(request).name
            )
        location = reverse("version", args=[name, version.number])
        body = VersionSerializer(found_version(name, version.number)).data
        return Response(body, status=201, headers={"Location": location})


class VersionView(APIView):
    """One version."""

    scopes = {"PATCH": Scope.WRITE, "DELETE": Scope.ADMIN}

    @extend_schema(parameters=[WAIT], responses=VersionSerializer)
    def get(self, request: Request, name: str, number: int) -> Response:
        """Show it, as it is now or after its inspection."""
        version, wait_s = found_version(name, number), wait_asked(request)
        if wait_s and version.inspection_job and not version.is_inspected:
            await_end(version.inspection_job, wait_s)
            version = found_version(name, number)
        return Response(VersionSerializer(version).data)

    @extend_schema(request=VersionChangeSerializer, responses=VersionSerializer)
    def patch(self, request: Request, name: str, number: int) -> Response:
        """Change its description, tags or reported metrics."""
        version, changes = found_version(name, number), checked(VersionChangeSerializer, request.data)
        if "metrics" in changes:
            changes["metrics_reported"] = changes.pop("metrics")
        services.change_version(version=version, actor=caller_of(request).name, **changes)
        return Response(VersionSerializer(found_version(name, number)).data)

    @extend_schema(responses={204: None, 409: REFUSED})
    def delete(self, request: Request, name: str, number: int) -> Response:
        """Delete it; 409 while it serves, has an alias or is used by an open job."""
        services.delete_version(version=found_version(name, number), actor=caller_of(request).name)
        return Response(status=204)


class FilesView(APIView):
    """The files of a version."""

    @extend_schema(responses=FilesSerializer)
    def get(self, request: Request, name: str, number: int) -> Response:
        """List all of them; there are few."""
        files = found_version(name, number).bundle.files.select_related("blob")
        return Response(FilesSerializer({"results": files}).data)


class FileView(APIView):
    """One file of a version."""

    content_negotiation_class = AnyAccept

    @extend_schema(operation_id="models_versions_file_retrieve", responses=BINARY)
    def get(self, request: Request, name: str, number: int, path: str) -> StreamingHttpResponse:
        """Download it."""
        files = found_version(name, number).bundle.files.select_related("blob")
        file = None if storable_fault(path) else files.filter(path=path).first()
        if file is None:
            raise NotFound(f"There is no file '{path[:100]}' in this version.")
        return downloads.send_file(file)


class ArtifactView(APIView):
    """A version as it was uploaded."""

    content_negotiation_class = AnyAccept

    @extend_schema(responses=BINARY | ZIPPED)
    def get(self, request: Request, name: str, number: int) -> StreamingHttpResponse:
        """Download its one file under its own name, or a zip of several."""
        return downloads.send_artifact(found_version(name, number))


class AliasView(APIView):
    """A name for a version; it routes nothing."""

    scopes = {"PUT": Scope.ADMIN, "DELETE": Scope.ADMIN}

    @extend_schema(responses=AliasSerializer)
    def get(self, request: Request, name: str, alias: str) -> Response:
        """Which version it names."""
        return Response(AliasSerializer(found_alias(name, alias)).data)

    @extend_schema(request=AliasTargetSerializer, responses={200: AliasSerializer, 201: AliasSerializer})
    def put(self, request: Request, name: str, alias: str) -> Response:
        """Have it name this version from now on."""
        found_model(name)
        version = found_version(name, checked(AliasTargetSerializer, request.data)["version"])
        set_to, is_new = services.set_alias(version=version, name=alias, actor=caller_of(request).name)
        return Response(AliasSerializer(set_to).data, status=201 if is_new else 200)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, name: str, alias: str) -> Response:
        """Remove it; its version stays."""
        services.delete_alias(alias=found_alias(name, alias), actor=caller_of(request).name)
        return Response(status=204)


class ActivateBestView(APIView):
    """What serves, set to the best by a metric."""

    scopes = {"POST": Scope.ADMIN}

    @extend_schema(request=ActivateBestSerializer, responses={200: BestSerializer, 404: REFUSED, 409: REFUSED})
    def post(self, request: Request) -> Response:
        """Activate the best version of a model, or of all models for a task, whose model is then the default."""
        body = checked(ActivateBestSerializer, request.data)
        model = found_model(body.pop("model")) if "model" in body else None
        choice, activation = services.activate_best(actor=caller_of(request).name, model=model, **body)
        best = {"model": activation.model.name, "version": activation.version_number, "activation": activation}
        return Response(BestSerializer(choice.criteria() | best).data)


api_urlpatterns = [
    path("models", ModelsView.as_view(), name="models"),
    path("models/<str:name>", ModelView.as_view(), name="model"),
    path("models/<str:name>/versions", VersionsView.as_view(), name="versions"),
    path("models/<str:name>/versions/<int:number>", VersionView.as_view(), name="version"),
    path("models/<str:name>/versions/<int:number>/files", FilesView.as_view(), name="version-files"),
    path("models/<str:name>/versions/<int:number>/files/<path:path>", FileView.as_view(), name="version-file"),
    path("models/<str:name>/versions/<int:number>/artifact", ArtifactView.as_view(), name="version-artifact"),
    path("models/<str:name>/aliases/<str:alias>", AliasView.as_view(), name="model-alias"),
    path("activate-best", ActivateBestView.as_view(), name="activate-best"),
]
