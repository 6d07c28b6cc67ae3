"""Who is using a version, in whichever app."""

from django.db.models import Q

from models_registry.models import ModelVersion
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
