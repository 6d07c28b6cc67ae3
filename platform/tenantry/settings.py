"""Every setting of the platform, read once from the environment by `tenantry.environment`; see .env.example."""

from django.core.exceptions import ImproperlyConfigured

from tenantry import environment
from tenantry.environment import BASE_DIR, env

VAR = environment.load()

# --- the site -------------------------------------------------------------------------------------------------------
DEBUG = environment.switch("DEBUG", False)
SECRET_KEY = environment.secret_key(VAR)
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=[]) or ["*"]
CSRF_TRUSTED_ORIGINS = environment.web_addresses("CSRF_TRUSTED_ORIGINS")
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if environment.switch("BEHIND_TLS_PROXY", False) else None
PROXY_COUNT = environment.count("PROXY_COUNT", 1 if SECURE_PROXY_SSL_HEADER else 0)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_PROXY_SSL_HEADER is not None
ROOT_URLCONF = "tenantry.urls"
CSRF_FAILURE_VIEW = "common.error_pages.csrf_failed"
WSGI_APPLICATION = "tenantry.wsgi.application"
APPEND_SLASH = True
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- who owns which tables: shared ones in the public schema, a tenant's own in its schema ---------------------------
SHARED_APPS = [
    "tenants",  # first, since django-tenants has a command `delete_tenant`, too
    "django_tenants",
    "tenantry",
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
]
TENANT_APPS = [
    "django.contrib.admin",  # its log names objects by key alone, so each tenant keeps its own
    "tenants.journal",
    "models_registry",
    "training",
    "inference",
    "documents",
]
INSTALLED_APPS = SHARED_APPS + [app for app in TENANT_APPS if app not in SHARED_APPS]
TENANT_MODEL = "tenants.Tenant"
TENANT_DOMAIN_MODEL = "tenants.Domain"
TENANT_LIMIT_SET_CALLS = True
PUBLIC_SCHEMA_NAME = "public"  # as the library has it anyway, which looks for this setting at every request
SHOW_PUBLIC_IF_NO_TENANT_FOUND = False
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
DATABASES = {"default": environment.database()}

MIDDLEWARE = [
    "common.requests.RequestIdMiddleware",
    "common.requests.AddressMiddleware",
    "common.page_policy.PagePolicyMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "tenants.middleware.TenantMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "models_registry.upload_pages.UploadPagesMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# --- who may come in ------------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "tenants.User"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
PASSWORD_RESET_TIMEOUT = 3 * 24 * 3600

# --- files ----------------------------------------------------------------------------------------------------------
STATIC_URL = "/static/"
STATIC_ROOT = env.str("STATIC_ROOT", default="") or str(VAR / "static")
STATICFILES_DIRS = [BASE_DIR / "static"]
TENANT_STORAGE = environment.one_of("TENANT_STORAGE", environment.STORAGE_ALIASES, "filesystem")
MODELS_ROOT = env.str("MODELS_ROOT", default="") or str(VAR / "models")
S3_BUCKET = env.str("AWS_STORAGE_BUCKET_NAME", default="")
if TENANT_STORAGE == "s3" and not S3_BUCKET:
    raise ImproperlyConfigured("TENANT_STORAGE is s3, but AWS_STORAGE_BUCKET_NAME is not set.")
STATIC_STORAGE = environment.one_of("STATIC_STORAGE", ("local", "s3"), "local")
if STATIC_STORAGE == "s3" and not S3_BUCKET:
    raise ImproperlyConfigured("STATIC_STORAGE is s3, but AWS_STORAGE_BUCKET_NAME is not set.")
STORAGE_BACKEND = env.str("TENANT_STORAGE_BACKEND", default="")
if TENANT_STORAGE == "custom" and not STORAGE_BACKEND:
    raise ImproperlyConfigured("TENANT_STORAGE is custom, but TENANT_STORAGE_BACKEND is not set.")
S3_OPTIONS = {
    "bucket_name": S3_BUCKET,
    "access_key": env.str("AWS_ACCESS_KEY_ID", default="") or None,
    "secret_key": env.str("AWS_SECRET_ACCESS_KEY", default="") or None,
    "endpoint_url": environment.web_address("AWS_S3_ENDPOINT_URL"),
    "region_name": env.str("AWS_S3_REGION_NAME", default="") or None,
    "querystring_auth": True,
    "file_overwrite": True,
}
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},  # nothing is stored without naming where
    "staticfiles": {"BACKEND": "common.static_files.StaticFilesStorage"},
    "database": {"BACKEND": "models_registry.storage.DatabaseStorage"},
    "filesystem": {"BACKEND": "models_registry.storage.FolderStorage", "OPTIONS": {"location": MODELS_ROOT}},
}
if S3_BUCKET:
    STORAGES["s3"] = {"BACKEND": "models_registry.s3.S3Storage", "OPTIONS": S3_OPTIONS}
if STORAGE_BACKEND:
    STORAGES["custom"] = {"BACKEND": STORAGE_BACKEND, "OPTIONS": environment.mapping("TENANT_STORAGE_OPTIONS")}
if STATIC_STORAGE == "s3":
    # Unsigned addresses, which browsers can keep: the prefix has to be open to readers (docs/operations.md).
    STORAGES["staticfiles"] = {
        "BACKEND": "storages.backends.s3.S3ManifestStaticStorage",
        "OPTIONS": S3_OPTIONS | {"location": "static", "querystring_auth": False, "default_acl": None},
    }
FILE_UPLOAD_TEMP_DIR = environment.folder("UPLOAD_TEMP_DIR", VAR / "tmp")
FILE_UPLOAD_HANDLERS = ["common.uploads.RefusingUploadHandler"]  # the views that take files bring their own
DATA_UPLOAD_MAX_MEMORY_SIZE = 32 << 20
DATA_UPLOAD_MAX_NUMBER_FILES = 501  # a version's 500 and its metadata
BLOB_CACHE_ROOT = env.str("BLOB_CACHE_ROOT", default="") or str(VAR / "cache")
BLOB_CACHE_BYTES = environment.positive("BLOB_CACHE_BYTES", 20 << 30)
DATASET_MAX_BYTES = environment.positive("DATASET_MAX_BYTES", 1 << 30)
DOCUMENT_MAX_BYTES = environment.positive("DOCUMENT_MAX_BYTES", 256 << 20)
DOCUMENT_MAX_PAGES = environment.positive("DOCUMENT_MAX_PAGES", 2000)
DOCUMENT_MAX_DPI = environment.positive("DOCUMENT_MAX_DPI", 300)

# --- models in memory -----------------------------------------------------------------------------------------------
MODELS_SOCKET = env.str("TENANTRY_MODELS_SOCKET", default="")
REDIS_URL = environment.redis_url()
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL},
    "models": {"BACKEND": "inference.pool.ModelPool", "LOCATION": f"unix:{MODELS_SOCKET}", "TIMEOUT": None},
}
PREDICTION_LANE = environment.one_of(
    "PREDICTION_LANE", ("auto", "direct", "queue"), "direct" if MODELS_SOCKET else "queue"
)
PREDICTION_DEADLINE_S = float(environment.positive("PREDICTION_DEADLINE_S", 30))
WARM_UP_SECONDS = environment.count("WARM_UP_SECONDS", 60)
COMPILE_SECONDS = environment.count("COMPILE_SECONDS", 120)
MODEL_LIMITS = environment.bounds(
    "MODEL_LIMITS",
    {
        "memory_bytes": 4 << 30,
        "call_seconds": 60.0,
        "load_seconds": 300.0,
        "reply_bytes": 256 << 20,
        "rows": 1_000_000,
    },
)

# --- how much a process does at once ---------------------------------------------------------------------------------
WEB_THREADS = environment.positive("WEB_THREADS", 64)
TENANT_REQUESTS_IN_FLIGHT = environment.positive("TENANT_REQUESTS_IN_FLIGHT", max(2, WEB_THREADS // 2))
TENANT_SHARE_PERCENT = environment.percent("TENANT_SHARE_PERCENT", 10)
INFERENCE_THREADS = environment.positive("INFERENCE_THREADS", 8)
INFERENCE_QUEUES = environment.positive("INFERENCE_QUEUES", 4)
BATCH_THREADS = environment.positive("BATCH_THREADS", 4)
DOCUMENT_WORKERS = environment.positive("DOCUMENT_WORKERS", 4)
DOCUMENT_SECONDS = environment.positive("DOCUMENT_SECONDS", 4 * 3600)
DATASET_TABLES = "training.services.stored_table"  # whom batch jobs ask for a dataset's table

# --- work that goes on after the answer -----------------------------------------------------------------------------
BROKER_URL = environment.broker_url(default=REDIS_URL)

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["tenants.authentication.CallerAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["tenants.permissions.HasScope"],
    "DEFAULT_PAGINATION_CLASS": "common.http.KeysetPagination",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["common.http.JsonParser"],
    "URL_FORMAT_OVERRIDE": None,  # `?format=` is a filter of versions here
    "DEFAULT_SCHEMA_CLASS": "tenants.operations.OperationSchema",
    "EXCEPTION_HANDLER": "common.http.exception_handler",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Tenantry",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "COMPONENT_SPLIT_PATCH": False,  # a body for PATCH says itself which of its fields may be left out
    "ENUM_NAME_OVERRIDES": {
        "CallerKindEnum": ("token", "user", "operator"),
        "DeploymentLaneEnum": "models_registry.routing.LANES",
        "DatasetStateEnum": "training.models.DatasetState",
        "JobStateEnum": "tenants.models.JobState",
        "LaneEnum": "tenants.models.Lane",
        "TenantStateEnum": "tenants.models.TenantState",
        "VersionStateEnum": "models_registry.models.VersionState",
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "inference.schema.add_predict",
    ],
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "common.logs.JsonFormatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["stderr"], "level": environment.log_level()},
    # Two lines a message, which say nothing that the lines about jobs do not.
    "loggers": {name: {"level": "WARNING"} for name in ("celery.worker.strategy", "celery.app.trace")},
}
