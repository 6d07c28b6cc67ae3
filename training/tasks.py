"""Training's tasks."""

from celery import shared_task

from tenants.jobs import TenantTask, work_on
from training import execution, profiling, searching, turns
from training.execution import DECISION_KIND, RUN_KIND
from training.profiling import PROFILE_KIND
from training.searching import SEARCH_KIND

LONGEST_RUN_S = 5 * 3600 + 1800  # above the longest that a tenant may have


@shared_task(name=RUN_KIND, base=TenantTask, soft_time_limit=LONGEST_RUN_S, time_limit=LONGEST_RUN_S + 60)
def run(*, job_id: str) -> None:
    turns.take_a_turn()


@shared_task(name=SEARCH_KIND, base=TenantTask, soft_time_limit=120, time_limit=150)
def advance_search(*, job_id: str) -> None:
    work_on(job_id, searching.advance)


@shared_task(name=PROFILE_KIND, base=TenantTask, soft_time_limit=1200, time_limit=1260)
def profile_dataset(*, job_id: str) -> None:
    work_on(job_id, profiling.profile_dataset)


@shared_task(name=DECISION_KIND, base=TenantTask, soft_time_limit=60, time_limit=90)
def decide_activation(*, job_id: str) -> None:
    work_on(job_id, execution.decide_activation)
