"""Pages of work that a job does: which state it is in, how far it has come, and cancelling it."""

from typing import Any, ClassVar

from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString

from tenants.models import Job, JobState, Scope
from tenants.site.forms import PageForm
from tenants.site.pages import Question, ScopedPages, answers, column, object_action
from tenants.site.parts import Tone, bar, label

LOOK_AGAIN_S = 2
STATE_TONES: dict[str, Tone] = {
    JobState.QUEUED.value: "info",
    JobState.RUNNING.value: "warning",
    JobState.SUCCEEDED.value: "success",
    JobState.FAILED.value: "danger",
    JobState.CANCELLED.value: "",
}


def state_label(state: str) -> SafeString:
    """A job's state as a label."""
    return label(state.capitalize(), STATE_TONES.get(state, ""))


def progress_of(job: Job | None) -> SafeString | str:
    """How far an open job has come, as a bar; nothing of one that has ended."""
    return "" if job is None or job.has_ended else bar(job.progress_percent, job.progress_stage)


class WorkPages(ScopedPages):
    """Pages of objects that have a `job`.

    work: what is cancelled, as it stands in a sentence. when_cancelled: what becomes of it then, a sentence.
    """

    work: ClassVar[str] = ""
    when_cancelled: ClassVar[str] = ""

    def state_of(self, obj: Any) -> str:
        """The state that an object is shown in."""
        return str(obj.job.state)

    def has_ended(self, obj: Any) -> bool:
        """Whether nothing more will become of it."""
        return bool(obj.job.has_ended)

    def stop(self, obj: Any, actor: str) -> None:
        """Cancel the work."""
        raise NotImplementedError

    @column("State", ordering="job__state", tones=STATE_TONES)
    def shown_state(self, obj: Any) -> tuple[str, str]:
        state = self.state_of(obj)
        return state, state.capitalize()

    @column("Progress")
    def progress(self, obj: Any) -> SafeString | str:
        return progress_of(obj.job)

    def refresh_s(self, obj: Any) -> int:
        return 0 if self.has_ended(obj) else LOOK_AGAIN_S

    def applies(self, action: str, obj: Any) -> bool:
        return action != "cancel" or bool(obj.job and not obj.job.has_ended)

    @object_action("Cancel", "cancel", Scope.WRITE, "cancel")
    def cancel(self, request: HttpRequest, object_id: str) -> HttpResponse:
        found = self.found(request, object_id)

        def act(said: dict[str, Any]) -> str:
            self.stop(found, self.caller(request).name)
            return f"The {self.work} is cancelled."

        question = Question(f"Cancel this {self.work}?", f"Cancel the {self.work}", says=[self.when_cancelled])
        back = self.url("change", found.pk)
        return self.ask(request, question, answers(PageForm, request), act, about=found, back=back)
