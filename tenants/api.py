"""Who is asking, members, tokens, settings and the audit trail of a tenant, over HTTP."""

from datetime import UTC, timedelta
from typing import Any, ClassVar
from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.urls import path, reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.errors import Invalid
from tenants import services
from tenants.authentication import caller_of
from tenants.idempotency import Idempotent
from tenants.journal.models import AuditEvent
from tenants.models import ApiToken, Membership, Scope
from tenants.operations import LOCATION, MOMENT, REFUSED
from tenants.permissions import IsKnown
from tenants.scope import current_tenant
from tenants.serializers import (
    AuditEventSerializer,
    MemberRequestSerializer,
    MemberSerializer,
    NewMemberSerializer,
    NewTokenSerializer,
    ResetLinkSerializer,
    RoleSerializer,
    SettingsSerializer,
    TokenRequestSerializer,
    TokenSerializer,
    WhoAmISerializer,
    checked,
)

ADMINS_ALONE: dict[str, str] = dict.fromkeys(("GET", "POST", "PATCH", "DELETE"), Scope.ADMIN)


class WhoAmIView(APIView):
    """The caller; works with every scope."""

    permission_classes = (IsKnown,)

    @extend_schema(responses=WhoAmISerializer)
    def get(self, request: Request) -> Response:
        caller, tenant = caller_of(request), getattr(request, "tenant", None)
        return Response(
            {
                "name": caller.name,
                "kind": "operator" if caller.is_operator else "token" if caller.token else "user",
                "scopes": sorted(caller.scopes),
                "tenantId": tenant.tenant_id if tenant else None,
                "expires_at": caller.token.expires_at if caller.token else None,
            }
        )


class MembersView(Idempotent, ListAPIView[Membership]):
    """People and their roles."""

    scopes = ADMINS_ALONE
    serializer_class = MemberSerializer
    order_fields = ("-created_at",)
    secret_fields = ("password",)

    def get_queryset(self) -> QuerySet[Membership]:
        return Membership.objects.filter(tenant=current_tenant()).select_related("user")

    @extend_schema(parameters=[LOCATION], request=MemberRequestSerializer, responses={201: NewMemberSerializer})
    def post(self, request: Request) -> Response:
        """Give a person a role here."""
        caller, asked = caller_of(request), checked(MemberRequestSerializer, request.data)
        member, password = services.add_member(
            tenant=current_tenant(), actor=caller.name, by_operator=caller.is_operator, **asked
        )
        body = MemberSerializer(member).data | {"password": password}
        return Response(body, status=201, headers={"Location": reverse("member", args=[member.pk])})


class MemberView(APIView):
    """One member."""

    scopes = ADMINS_ALONE

    @extend_schema(responses=MemberSerializer)
    def get(self, request: Request, member_id: int) -> Response:
        return Response(MemberSerializer(_member(member_id)).data)

    @extend_schema(request=RoleSerializer, responses={200: MemberSerializer, 409: REFUSED})
    def patch(self, request: Request, member_id: int) -> Response:
        asked = checked(RoleSerializer, request.data)
        member = services.change_role(membership=_member(member_id), actor=caller_of(request).name, **asked)
        return Response(MemberSerializer(member).data)

    @extend_schema(responses={204: None, 409: REFUSED})
    def delete(self, request: Request, member_id: int) -> Response:
        services.remove_member(membership=_member(member_id), actor=caller_of(request).name)
        return Response(status=204)


class ResetLinkView(APIView):
    """A link by which a member sets a new password; the admin passes it on, no mail server is needed."""

    scopes = ADMINS_ALONE

    @extend_schema(request=None, responses=ResetLinkSerializer)
    def post(self, request: Request, member_id: int) -> Response:
        caller = caller_of(request)
        url_path = services.reset_path(membership=_member(member_id), actor=caller.name, by_operator=caller.reaches_all)
        expires_at = timezone.now() + timedelta(seconds=settings.PASSWORD_RESET_TIMEOUT)
        link = request.build_absolute_uri(f"{reverse('home')}{url_path}")
        return Response({"link": link, "expires_at": expires_at})


class TokensView(Idempotent, ListAPIView[ApiToken]):
    """The tenant's tokens; their secrets are shown when they are issued and never again."""

    scopes = ADMINS_ALONE
    serializer_class = TokenSerializer
    order_fields = ("-created_at", "name")
    secret_fields = ("token",)

    def get_queryset(self) -> QuerySet[ApiToken]:
        return ApiToken.objects.filter(tenant=current_tenant())

    @extend_schema(parameters=[LOCATION], request=TokenRequestSerializer, responses={201: NewTokenSerializer})
    def post(self, request: Request) -> Response:
        """Issue one; its secret is in this answer alone."""
        asked = checked(TokenRequestSerializer, request.data)
        token, secret = services.issue_token(
            tenant=current_tenant(),
            name=asked["name"],
            scopes=asked["scopes"],
            expires_in=asked["lifetime"],
            actor=caller_of(request).name,
        )
        body = TokenSerializer(token).data | {"token": secret}
        return Response(body, status=201, headers={"Location": reverse("token", args=[token.pk])})


class TokenView(APIView):
    """One token."""

    scopes = ADMINS_ALONE

    @extend_schema(responses=TokenSerializer)
    def get(self, request: Request, token_id: UUID) -> Response:
        return Response(TokenSerializer(_token(token_id)).data)

    @extend_schema(responses={204: None}, description="Revoke it; it stays in the list.")
    def delete(self, request: Request, token_id: UUID) -> Response:
        services.revoke_token(token=_token(token_id), actor=caller_of(request).name)
        return Response(status=204)


class SettingsView(APIView):
    """What is set for the tenant."""

    scopes = ADMINS_ALONE

    @extend_schema(responses=SettingsSerializer)
    def get(self, request: Request) -> Response:
        return Response(SettingsSerializer(current_tenant()).data)

    @extend_schema(request=SettingsSerializer, responses=SettingsSerializer)
    def patch(self, request: Request) -> Response:
        tenant, asked = current_tenant(), checked(SettingsSerializer, request.data)
        services.update_settings(tenant=tenant, changes=asked, actor=caller_of(request).name)
        return Response(SettingsSerializer(tenant).data)


class AuditView(ListAPIView[AuditEvent]):
    """Who did what in the tenant, newest first."""

    scopes = ADMINS_ALONE
    serializer_class = AuditEventSerializer
    order_fields = ("-at",)
    filters: ClassVar[dict[str, str]] = {"actor": "actor", "action": "action__startswith", "target": "target"}

    def get_queryset(self) -> QuerySet[AuditEvent]:
        asked = self.request.query_params
        found = AuditEvent.objects.filter(**{self.filters[name]: asked[name] for name in self.filters if name in asked})
        if "since" in asked:
            found = found.filter(at__gte=_moment("since", asked["since"]))
        if "until" in asked:
            found = found.filter(at__lt=_moment("until", asked["until"]))
        return found

    @extend_schema(
        parameters=[
            OpenApiParameter("actor", str),
            OpenApiParameter("action", str, description="A whole action, or what it begins with: `version.`."),
            OpenApiParameter("target", str),
            OpenApiParameter("since", MOMENT, description="From this moment on."),
            OpenApiParameter("until", MOMENT, description="Before this moment."),
        ]
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Who did what in the tenant, newest first."""
        return super().get(request, *args, **kwargs)


def _moment(name: str, text: str) -> Any:
    try:
        moment = parse_datetime(text.replace(" ", "+"))
        if moment is not None:
            return (moment if timezone.is_aware(moment) else timezone.make_aware(moment)).astimezone(UTC)
    except (ValueError, OverflowError):  # no such day; or one that UTC has in year 0 or 10000
        pass
    raise Invalid("A moment is written as 2026-01-31T12:00:00Z.", fields={name: text[:40]})


def _member(member_id: int) -> Membership:
    found = Membership.objects.filter(tenant=current_tenant()).select_related("user", "tenant")
    return get_object_or_404(found, pk=member_id)


def _token(token_id: UUID) -> ApiToken:
    return get_object_or_404(ApiToken, tenant=current_tenant(), pk=token_id)


api_urlpatterns = [
    path("whoami", WhoAmIView.as_view(), name="whoami"),
    path("members", MembersView.as_view(), name="members"),
    path("members/<int:member_id>", MemberView.as_view(), name="member"),
    path("members/<int:member_id>/reset-link", ResetLinkView.as_view(), name="member-reset-link"),
    path("tokens", TokensView.as_view(), name="tokens"),
    path("tokens/<uuid:token_id>", TokenView.as_view(), name="token"),
    path("settings", SettingsView.as_view(), name="settings"),
    path("audit", AuditView.as_view(), name="audit"),
]
