"""Pages for people: logging in and out, passwords, a start page, the API's documentation."""

from typing import Any

from django.contrib.auth import views
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import AuthenticationForm
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import path, reverse_lazy
from django.views.decorators.http import require_safe

from common import error_pages
from common.errors import Denied, PlatformError, Throttled, Unauthenticated
from common.http import error_response, is_api
from tenants.authentication import authenticate
from tenants.login import count_attempt, forget_attempts
from tenants.models import Membership, User
from tenants.passwords import reset_tokens


class LoginForm(AuthenticationForm):
    """An email address and a password; on a tenant's address its members' and operators' only."""

    def clean(self) -> dict[str, Any]:
        if self.request is not None and (email := self.cleaned_data.get("username")):
            try:
                count_attempt(self.request, email)
            except Throttled as error:
                raise ValidationError(error.message, code="throttled") from error
        return super().clean()

    def confirm_login_allowed(self, user: Any) -> None:
        super().confirm_login_allowed(user)
        if not _may_enter(self.request, user):  # said as for a wrong password: who has an account is nobody's business
            raise self.get_invalid_login_error()


class LoginView(views.LoginView):
    """Logging in; `next` is followed within this host only."""

    authentication_form = LoginForm
    template_name = "registration/login.html"

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        forget_attempts(self.request, form.cleaned_data["username"])
        return super().form_valid(form)

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        throttled = form.has_error("__all__", "throttled")
        headers = {"Retry-After": "900"} if throttled else {}
        return self.render_to_response(
            self.get_context_data(form=form), status=429 if throttled else 200, headers=headers
        )


class PasswordChangeView(views.PasswordChangeView):
    """Setting a new password while knowing the old one."""

    template_name = "registration/password_change.html"
    success_url = reverse_lazy("password_change_done")


class ResetView(views.PasswordResetConfirmView):
    """Setting a new password by a link that an admin has made."""

    template_name = "registration/password_reset.html"
    token_generator = reset_tokens
    success_url = reverse_lazy("password_reset_complete")


@require_safe
@login_required
def home(request: HttpRequest) -> HttpResponse:
    """What a person can do here; on the main host, the tenants that they are a member of.

    Raises:
        PermissionDenied: the tenant is suspended.
    """
    if getattr(request, "tenant", None) is None:
        memberships = Membership.objects.filter(user=_user(request)).select_related("tenant").order_by("tenant__name")
        return render(request, "home.html", {"memberships": memberships})
    try:
        caller = authenticate(request)
    except Unauthenticated:
        return redirect("login")
    except Denied as error:
        raise PermissionDenied(error.message) from error
    return render(request, "home.html", {"caller": caller, "tenant": request.tenant})  # type: ignore[attr-defined]


@require_safe
@login_required
def docs(request: HttpRequest) -> HttpResponse:
    """The OpenAPI document to read and try in a browser; nothing is fetched from elsewhere."""
    return render(request, "docs.html")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """A tenant's handler404; who shows nothing valid gets 401 below the API, as where there is no tenant."""
    if is_api(request):
        try:
            authenticate(request)
        except PlatformError as error:
            return error_response(error, request)
    return error_pages.not_found(request, exception)


def _may_enter(request: HttpRequest | None, user: User) -> bool:
    tenant = getattr(request, "tenant", None)
    return tenant is None or user.is_superuser or user.memberships.filter(tenant=tenant).exists()


def _user(request: HttpRequest) -> User:
    if not isinstance(request.user, User):
        raise PermissionDenied
    return request.user


urlpatterns = [
    path("", home, name="home"),
    path("login", LoginView.as_view(), name="login"),
    path("logout", views.LogoutView.as_view(next_page="login"), name="logout"),
    path("password", PasswordChangeView.as_view(), name="password_change"),
    path(
        "password/done",
        views.PasswordChangeDoneView.as_view(template_name="registration/password_changed.html"),
        name="password_change_done",
    ),
    path("reset/<str:uidb64>/<str:token>", ResetView.as_view(), name="password_reset_confirm"),
    path(
        "reset/done",
        views.PasswordResetCompleteView.as_view(template_name="registration/password_reset_done.html"),
        name="password_reset_complete",
    ),
    path("docs", docs, name="docs"),
]
