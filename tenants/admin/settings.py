"""What a tenant's admins set for their tenant."""

from typing import Any

from django.core.validators import RegexValidator
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from tenants import services
from tenants.models import Lane, Scope, Tenant
from tenants.scope import current_tenant
from tenants.serializers import NAME
from tenants.site.forms import ChoiceField, PageForm, TextField
from tenants.site.pages import Question, answers, asked
from tenants.site.parts import Facts, Part, code, when
from tenants.site.sites import Nav, tenant_site, visitor


class SettingsForm(PageForm):
    """What may be set."""

    name = TextField(max_length=200, help_text="As people read it; the address stays.")
    default_model = TextField(
        required=False,
        max_length=100,
        validators=[RegexValidator(NAME, "A model's name is 1 to 100 of A-Z, a-z, 0-9, '.', '_', '-'.")],
        help_text="Answers predictions that name no model. Empty: the only model that serves.",
    )
    lane = ChoiceField(
        required=False,
        choices=[("", "As the platform does"), *Lane.choices],
        help_text="Direct: the machine that got the request answers. Queue: any worker does.",
    )


@tenant_site.page("settings", Nav("Tenant", "settings", 71, "Settings"), Scope.ADMIN)
def tenant_settings(request: HttpRequest) -> HttpResponse:
    """The settings, to see and to change."""
    tenant = current_tenant()
    caller = visitor(request)

    def act(said: dict[str, Any]) -> str:
        services.update_settings(tenant=tenant, changes=said, actor=caller.name if caller else "")
        return "The settings are changed."

    initial = {name: getattr(tenant, name) for name in SettingsForm.base_fields}
    form = answers(SettingsForm, request, initial=initial)
    question = Question("Settings", "Save")
    back = reverse("admin:settings")
    return asked(request, tenant_site.shown, question, form, act, back=back, parts=[_fixed_part(tenant)])


def _fixed_part(tenant: Tenant) -> Part:
    facts = {
        "Tenant": code(tenant.tenant_id),
        "Address": code(f"{tenant.base_path}/"),
        "Storage": tenant.storage_alias,
        "State": tenant.get_state_display(),
        "Since": when(tenant.created_at),
    }
    return Part("Set by the operator", Facts(facts))
