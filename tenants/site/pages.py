"""Pages of one model in an admin site: who may see them, and asking before a service does something."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeVar

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from common.errors import PlatformError
from tenants.authentication import Caller
from tenants.models import Scope
from tenants.site.forms import PageForm
from tenants.site.parts import Part, when
from tenants.site.sites import Nav, visitor

Method = TypeVar("Method", bound=Callable[..., Any])
PERMISSION_OF = {
    Scope.READ.value: "view",
    Scope.PREDICT.value: "predict",
    Scope.WRITE.value: "write",
    Scope.ADMIN.value: "administer",
}
Act = Callable[[dict[str, Any]], "str | HttpResponse"]


@dataclass(frozen=True)
class Question:
    """What a page asks before something is done.

    says: what will happen, a sentence each. is_final: it cannot be undone. hindered: why it cannot be done now, a
    sentence each; it is then not offered.
    """

    title: str
    submit: str
    says: Sequence[str] = ()
    is_final: bool = False
    hindered: Sequence[Any] = ()


def column(
    title: str, *, ordering: str | None = None, tones: Mapping[str, str] | None = None, boolean: bool | None = None
) -> Callable[[Method], Method]:
    """Decorate a method with this to have what it returns of an object as a column of the list.

    tones: the colours of a label by its value; the method then returns the value, or the value and its words.
    """
    decorate: Callable[[Method], Method] = display(
        description=title, ordering=ordering, label=dict(tones) if tones else None, boolean=boolean
    )
    return decorate


def moment_column(title: str, field: str, none: str = "") -> Callable[[Any, Any], SafeString | str]:
    """A column with the moment in this field, in the reader's own zone. none: words where there is none."""

    @column(title, ordering=field)
    def moment(self: Any, obj: Any) -> SafeString | str:
        return when(getattr(obj, field)) or none

    return moment


def object_action(title: str, icon: str, scope: str, path: str, *, is_main: bool = False) -> Callable[[Method], Method]:
    """Decorate a method with this to have it as an action of an object's page, for callers with this scope.

    The method takes the request and `object_id`, and lies at `path` below the object's address.
    is_main: it is what most people come to the page for.
    """
    decorate: Callable[[Method], Method] = action(
        description=title,
        icon=icon,
        permissions=[PERMISSION_OF[scope]],
        url_path=path,
        variant=ActionVariant.PRIMARY if is_main else ActionVariant.DEFAULT,
    )
    return decorate


class ScopedPages(ModelAdmin):  # type: ignore[misc]
    """Pages whose permissions are the scopes of the caller. Nothing is saved or deleted here but by services.

    see, add: the scope that each needs; without `add`, nobody adds. add_title: the words of the button for it.
    none_yet: what to do, or what these are, where there are none; a sentence.
    """

    see: ClassVar[str] = Scope.READ
    add: ClassVar[str | None] = None
    add_title: ClassVar[str] = ""
    none_yet: ClassVar[str] = ""
    nav: ClassVar[Nav | None] = None
    actions = None
    list_per_page = 50
    list_filter_submit = False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, self.see)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.add is not None and self._may(request, self.add)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_write_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """For actions that need the scope `write`."""
        return self._may(request, Scope.WRITE)

    def has_predict_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """For actions that need the scope `predict`."""
        return self._may(request, Scope.PREDICT)

    def has_administer_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """For actions that need the scope `admin`."""
        return self._may(request, Scope.ADMIN)

    def _may(self, request: HttpRequest, scope: str) -> bool:
        caller = visitor(request)
        return self.admin_site.has_permission(request) and caller is not None and caller.may(scope)

    def require_add(self, request: HttpRequest) -> None:
        """Go on only for those who may add."""
        if not self.has_add_permission(request):
            raise PermissionDenied

    def caller(self, request: HttpRequest) -> Caller:
        """Who asks. Every page is reached through the site, which has let them in."""
        found = visitor(request)
        if found is None:
            raise Http404
        return found

    def found(self, request: HttpRequest, object_id: str) -> Any:
        """The object of this id, among those that these pages show."""
        found = self.get_object(request, unquote(object_id))
        if found is None:
            raise Http404
        return found

    def url(self, page: str, *args: object) -> str:
        """The path of one of this model's pages (`changelist`, `add`, `change`, or an action's name)."""
        return page_url(self.model, page, *args)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        self._entitle(request, "")
        response: HttpResponse = super().changelist_view(request, extra_context)
        return response

    def _entitle(self, request: HttpRequest, heading: str) -> None:
        """Have the page's header (`header_title.html`) call its section as the sidebar does, and its object so."""
        request.section = self.nav.title if self.nav else ""  # type: ignore[attr-defined]
        request.heading = heading  # type: ignore[attr-defined]

    def heading(self, obj: Any) -> str:
        """What an object is called at the top of its pages."""
        return str(obj)

    def parts(self, request: HttpRequest, obj: Any) -> list[Part]:
        """The blocks of an object's page."""
        return []

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The object's page: what is known of it, and what can be done with it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        obj = self.found(request, object_id)
        allowed = self.get_actions_detail(request, object_id)
        useful = [one for one in allowed if self.applies(one.method.original_function_name, obj)]
        actions = self._get_actions_navigation(self.actions_detail, useful, object_id)
        context = {"parts": self.parts(request, obj), "refresh_s": self.refresh_s(obj), "actions_detail": actions}
        return self.page(request, "admin/detail.html", self.heading(obj), about=obj, **context)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        raise Http404  # the audit trail is the history

    def applies(self, action: str, obj: Any) -> bool:
        """Whether the action makes sense for this object now, so that its page offers it."""
        return True

    def refresh_s(self, obj: Any) -> int:
        """After how many seconds an object's page looks again for news; 0 for never."""
        return 0

    def ask(
        self,
        request: HttpRequest,
        question: Question,
        form: PageForm,
        act: Act,
        *,
        about: Model | None = None,
        back: str,
        parts: Sequence[Part] = (),
    ) -> HttpResponse:
        """As `asked` does, in the frame of this model's pages."""
        show = partial(self.page, about=about)
        return asked(request, show, question, form, act, back=back, parts=parts)

    def show_once(
        self, request: HttpRequest, title: str, secrets: Sequence[tuple[str, str]], *says: str, back: str
    ) -> HttpResponse:
        """A page with secrets that are kept nowhere: not in a message, which would lie in a cookie."""
        return self.page(request, "admin/shown_once.html", title, secrets=secrets, says=says, back=back)

    def page(
        self, request: HttpRequest, template: str, title: str, *, about: Model | None = None, **context: Any
    ) -> TemplateResponse:
        """A page of this model's, in the frame of the site."""
        request.current_app = self.admin_site.name
        self._entitle(request, self.heading(about) if about else "")
        frame = self.admin_site.each_context(request)
        own = {"title": title, "opts": self.opts, "original": about, "media": self.media}
        return TemplateResponse(request, template, frame | own | context)


def asked(
    request: HttpRequest,
    show: Callable[..., HttpResponse],
    question: Question,
    form: PageForm,
    act: Act,
    *,
    back: str,
    parts: Sequence[Part] = (),
) -> HttpResponse:
    """Show the question with its form; once it is answered, act, and say what was done or why it was not.

    show: makes the page, as `ScopedPages.page` and `CallerSite.shown` do. parts: blocks below the form.
    act: does it and returns a sentence about what was done (then `back` is shown) or a page of its own.
    """
    if request.method == "POST" and form.is_valid():
        try:
            done = act(form.cleaned_data)
        except PlatformError as error:
            form.show(error)
        else:
            if isinstance(done, HttpResponse):
                return done
            messages.success(request, done)
            return HttpResponseRedirect(back)
    return show(request, "admin/ask.html", question.title, question=question, form=form, back=back, parts=parts)


def page_url(model: type[Model] | Model, page: str, *args: object) -> str:
    """The path of one of a model's admin pages on the present surface."""
    options = model._meta
    return reverse(f"admin:{options.app_label}_{options.model_name}_{page}", args=args)


def answers(form: type[PageForm], request: HttpRequest, **kwargs: Any) -> Any:
    """The form, filled with what was sent if something was."""
    if request.method == "POST":
        return form(request.POST, request.FILES, **kwargs)
    return form(**kwargs)
