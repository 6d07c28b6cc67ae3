"""The one Celery application: its queues, its routes and its clock."""

import os
import warnings
from typing import Any

from celery import Celery
from celery.exceptions import SecurityWarning
from celery.schedules import crontab
from celery.signals import celeryd_after_setup, setup_logging, worker_ready, worker_shutdown
from django.conf import settings
from kombu import Queue

from inference.queued import queues
from tenantry import worker_reports

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tenantry.settings")
# Workers never run a tenant's code: runners do, under a uid of their own. Who starts the platform as root means it.
warnings.filterwarnings("ignore", category=SecurityWarning)

INFERENCE = "inference"  # who consumes this queue consumes the queue lane's as well
LONGEST_JOB_S = 6 * 3600  # the hard time limit of training; nothing may hold a message longer

app = Celery("tenantry")
app.conf.update(
    broker_url=settings.BROKER_URL,
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        # Redis hands a message out again once this has passed, so it must outlast the longest job.
        "visibility_timeout": LONGEST_JOB_S + 3600,
        # redis-py's default of 5 s breaks longer blocking pops.
        "socket_timeout": 60,
        "socket_connect_timeout": 5,
    }
    if "redis" in settings.BROKER_URL.split(":", 1)[0]
    else {},
    task_ignore_result=True,  # PostgreSQL holds the state of every job
    task_acks_late=True,
    task_reject_on_worker_lost=True,  # safe: `Job.attempts` bounds redelivery
    task_default_queue="default",
    task_queues=[Queue(name) for name in ("default", INFERENCE, *queues.names(), "batch", "training")],
    accept_content=["json", "msgpack"],  # msgpack carries the queue lane's arrays as they are; never pickle
    task_routes={
        "inference.sweep": {"queue": "default"},  # of no hurry, unlike what somebody waits for
        "inference.predict": {"queue": "batch"},
        "inference.batch": {"queue": "batch"},
        "documents.*": {"queue": "batch"},
        "inference.*": {"queue": INFERENCE},
        "training.decide_activation": {"queue": "default"},  # takes no time, and must not wait behind fits that do
        "training.search": {"queue": "default"},  # asks for trials and waits for none
        "training.profile": {"queue": "default"},
        "training.*": {"queue": "training"},
    },
    task_time_limit=LONGEST_JOB_S,
    task_create_missing_queues=False,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_soft_shutdown_timeout=10,
    worker_enable_soft_shutdown_on_idle=True,
    beat_schedule={
        "sweep-jobs": {"task": "tenants.sweep_jobs", "schedule": 5.0, "options": {"expires": 30}},
        "sweep-answers": {"task": "tenants.sweep_answers", "schedule": 3600.0, "options": {"expires": 3600}},
        "sweep-storage": {"task": "models_registry.sweep_storage", "schedule": 600.0, "options": {"expires": 600}},
        "sweep-predictions": {"task": "inference.sweep", "schedule": crontab(hour="3", minute="17")},
    },
)
app.autodiscover_tasks(["tenants", "models_registry", "training", "inference", "documents"])


@celeryd_after_setup.connect
def consume_the_whole_lane(instance: Any, **_: object) -> None:
    """A worker of `inference` consumes every queue of the lane; one that names some of them, those alone."""
    consumed = instance.app.amqp.queues
    if INFERENCE in consumed.consume_from:
        for name in queues.names():
            consumed.select_add(name)


@setup_logging.connect
def keep_django_logging(**_: object) -> None:
    """Workers log as the web processes do: connecting here keeps Celery from configuring logs of its own."""


@worker_ready.connect
def begin_to_report(sender: Any, **_: object) -> None:
    """A worker says every few seconds what it does, for the operator's page."""
    worker_reports.begin(sender)


@worker_shutdown.connect
def end_reports(sender: Any, **_: object) -> None:
    """A worker that ends in good order is not missed."""
    worker_reports.end(str(sender.hostname))


@worker_ready.connect
def attend_model_host(sender: Any, **_: object) -> None:
    """A worker that predicts sees to it that what is pinned is in its machine's memory, as web processes do."""
    if "inference" in sender.app.amqp.queues.consume_from:
        from inference import preloading, warming  # they need the apps, which are loaded by now

        preloading.start()
        warming.start()
