"""Where settings come from: the environment, then `.env`, then the embedded stack that runs in VAR."""

import os
from pathlib import Path

import environ
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parents[2]
STORAGE_ALIASES = ("database", "filesystem", "s3")

env = environ.Env()


def load() -> Path:
    """Read the files that may hold settings and return VAR, the folder of everything that is kept."""
    env.read_env(str(BASE_DIR / ".env"))
    var = Path(env.str("TENANTRY_VAR", default=str(BASE_DIR / "var"))).absolute()
    env.read_env(str(var / "stack.env"))
    return var


def required(name: str, hint: str) -> str:
    """The value of a setting that has no default."""
    value: str = env.str(name, default="")
    if not value:
        raise ImproperlyConfigured(f"{name} is not set: {hint}")
    return value


def positive(name: str, default: int) -> int:
    """A whole number above zero."""
    raw = os.environ.get(name, str(default))
    if not raw.isdecimal() or int(raw) < 1:
        raise ImproperlyConfigured(f"{name} must be a whole number above zero, not {raw!r}.")
    return int(raw)


def one_of(name: str, choices: tuple[str, ...], default: str) -> str:
    """One of a closed set of words."""
    value: str = env.str(name, default=default)
    if value not in choices:
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(choices)}, not {value!r}.")
    return value


def switch(name: str, default: bool) -> bool:
    """A yes or a no: 1, true, yes, on or 0, false, no, off."""
    raw = os.environ.get(name, "").strip().lower()
    if raw in ("", "1", "true", "yes", "on", "0", "false", "no", "off"):
        return default if raw == "" else raw in ("1", "true", "yes", "on")
    raise ImproperlyConfigured(f"{name} must be yes or no, not {raw!r}.")


def database() -> dict[str, object]:
    """Django's DATABASES entry for DATABASE_URL, a Unix socket's folder as `?host=` included."""
    url = required("DATABASE_URL", "name a PostgreSQL database, or start the embedded one with `make up`.")
    try:
        config: dict[str, object] = environ.Env.db_url_config(url)
    except Exception as error:
        raise ImproperlyConfigured(
            "DATABASE_URL is not a database URL (postgres://user:password@host/name)."
        ) from error
    if "postgresql" not in str(config.get("ENGINE")):
        raise ImproperlyConfigured("DATABASE_URL must name a PostgreSQL database: tenants live in its schemas.")
    options = config.get("OPTIONS")
    if isinstance(options, dict) and "host" in options:
        config["HOST"] = options.pop("host")
    return config | {"ENGINE": "django_tenants.postgresql_backend", "CONN_MAX_AGE": 600, "CONN_HEALTH_CHECKS": True}


def secret_key(var: Path) -> str:
    """SECRET_KEY, or the random one that VAR keeps for an embedded stack."""
    if given := env.str("SECRET_KEY", default=""):
        return str(given)
    kept = var / "secret_key"
    if kept.exists():
        return kept.read_text()
    return required("SECRET_KEY", "give a long random value; `make up` makes one and keeps it.")
