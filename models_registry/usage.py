"""Who is using a version, in whichever app."""

from django.db.models import Q

from models_registry.history import newest, routing_of
from models_registry.models import ModelVersion
from models_registry.routing import Routing
from tenants.models import Job


def open_jobs_of(version: ModelVersion) -> list[Job]:
    """Jobs that have not ended and need this version: those about it, and those of any row that points at it.

    A row says so by a foreign key to the version beside one to its job, so the apps above need not be known here.
    """
    condition = Q(object_id=str(version.pk))
    for relation in ModelVersion._meta.get_fields(include_hidden=True):
        if not (relation.auto_created and (relation.one_to_many or relation.one_to_one)):
            continue
        owner, column = relation.related_model, relation.field.name  # type: ignore[union-attr]
        if any(field.name == "job" and field.related_model is Job for field in owner._meta.get_fields()):  # type: ignore[union-attr]
            condition |= Q(pk__in=owner._default_manager.filter(**{column: version}).values("job"))  # type: ignore[union-attr]
    return list(Job.objects.open().filter(condition).order_by("created_at"))


def part_of(number: int, routing: Routing) -> str:
    """What a version does for the traffic of its model, in words; empty if nothing."""
    if routing.shadow and routing.shadow.version == number:
        return "is the shadow of what serves"
    share = next((share.percent for share in routing.split if share.version == number), 0)
    return f"is active and answers {share} % of the requests" if share else ""


def dependents_of(version: ModelVersion) -> list[str]:
    """What depends on a version, so that it is not deleted: a sentence each."""
    found = []
    if part := part_of(version.number, routing_of(newest(version.model))):
        found.append(f"It {part}: change the deployment or deactivate the model first.")
    if names := list(version.aliases.values_list("name", flat=True)):
        found.append(f"The aliases {', '.join(names)} name it: remove them first.")
    found += [f"An open job uses it: {job.kind} {job.pk}." for job in open_jobs_of(version)[:5]]
    return found
