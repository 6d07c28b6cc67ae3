"""Where settings come from: the environment, then `.env`, then the embedded stack that runs in VAR."""

import json
import logging
import os
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parents[2]
STORAGE_ALIASES = ("database", "filesystem", "s3", "custom")
BROKER_SCHEMES = ("redis", "rediss", "redis+socket", "amqp", "amqps")
CACHE_SCHEMES = ("redis", "rediss", "unix")
# A server or a network that says nothing ends in an error, not in threads that wait. DATABASE_URL may say otherwise.
PATIENCE_WITH_POSTGRESQL: dict[str, object] = {"connect_timeout": 5, "tcp_user_timeout": 10_000}

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
    if not (number := count(name, default)):
        raise ImproperlyConfigured(f"{name} must be a whole number above zero, not 0.")
    return number


def count(name: str, default: int) -> int:
    """A whole number, zero included."""
    raw = os.environ.get(name) or str(default)
    if not raw.isdecimal():
        raise ImproperlyConfigured(f"{name} must be a whole number, not {raw!r}.")
    return int(raw)


def percent(name: str, default: int) -> int:
    """A whole number from 1 to 100."""
    if (number := positive(name, default)) > 100:
        raise ImproperlyConfigured(f"{name} must be a whole number from 1 to 100, not {number}.")
    return number


def one_of(name: str, choices: tuple[str, ...], default: str) -> str:
    """One of a closed set of words."""
    value: str = env.str(name, default="") or default
    if value not in choices:
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(choices)}, not {value!r}.")
    return value


def switch(name: str, default: bool) -> bool:
    """A yes or a no: 1, true, yes, on or 0, false, no, off."""
    raw = os.environ.get(name, "").strip().lower()
    if raw in ("", "1", "true", "yes", "on", "0", "false", "no", "off"):
        return default if raw == "" else raw in ("1", "true", "yes", "on")
    raise ImproperlyConfigured(f"{name} must be yes or no, not {raw!r}.")


def log_level() -> str:
    """LOG_LEVEL, a level's name in capitals."""
    return one_of("LOG_LEVEL", tuple(logging.getLevelNamesMapping()), "INFO")


def mapping(name: str) -> dict[str, object]:
    """A JSON object."""
    raw = env.str(name, default="") or "{}"
    try:
        value = json.loads(raw)
    except json.JSONDecodeError as error:
        raise ImproperlyConfigured(f"{name} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise ImproperlyConfigured(f"{name} must be a JSON object, not {raw!r}.")
    return value


def bounds(name: str, defaults: dict[str, float]) -> dict[str, float]:
    """Numbers above zero by name: the defaults, and what a JSON object says of some of them."""
    said = mapping(name)
    for key, value in said.items():
        if key not in defaults:
            raise ImproperlyConfigured(f"{name} has no {key!r}; there are {', '.join(defaults)}.")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise ImproperlyConfigured(f"{name}: {key} must be a number above zero, not {value!r}.")
        defaults = defaults | {key: type(defaults[key])(value)}
    return defaults


def web_addresses(name: str) -> list[str]:
    """Addresses that begin with http:// or https://, separated by commas."""
    addresses: list[str] = env.list(name, default=[])
    for address in addresses:
        if not is_web_address(address):
            raise ImproperlyConfigured(f"{name} must name http:// or https:// addresses, not {address!r}.")
    return addresses


def web_address(name: str) -> str | None:
    """One such address, or none."""
    addresses = web_addresses(name)
    if len(addresses) > 1:
        raise ImproperlyConfigured(f"{name} must name one address, not {len(addresses)}.")
    return addresses[0] if addresses else None


def is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:  # a broken IPv6 address
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def folder(name: str, default: Path) -> str:
    """A folder that is made where it is missing."""
    path = Path(env.str(name, default="") or default)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(f"{name}: the folder {path} cannot be made: {error.strerror}.") from error
    return str(path)


def redis_url() -> str:
    """Where Valkey or Redis is, for caches and replies."""
    url = required("REDIS_URL", "name a Valkey or Redis server, or start the embedded one with `make up`.")
    if urlsplit(url).scheme not in CACHE_SCHEMES:
        raise ImproperlyConfigured("REDIS_URL must name a Valkey or Redis server (redis://, rediss://, unix://).")
    return with_certificate_check(url)


def broker_url(default: str) -> str:
    """Where the broker of jobs is: BROKER_URL, else CLOUDAMQP_URL, else `default`."""
    url = env.str("BROKER_URL", default="") or env.str("CLOUDAMQP_URL", default="") or default
    if urlsplit(url).scheme not in BROKER_SCHEMES:
        raise ImproperlyConfigured(
            "BROKER_URL must name a Redis or RabbitMQ broker (redis://, rediss://, redis+socket://, amqp://, amqps://)."
        )
    return with_certificate_check(url)


def with_certificate_check(url: str) -> str:
    """A rediss:// address that says whether to check the server's certificate, which kombu wants to be told."""
    is_checked = switch("REDIS_CHECK_CERTIFICATE", True)
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if parts.scheme != "rediss" or "ssl_cert_reqs" in query:
        return url
    query["ssl_cert_reqs"] = "required" if is_checked else "none"
    return parts._replace(query=urlencode(query)).geturl()


def database() -> dict[str, object]:
    """Django's DATABASES entry for DATABASE_URL, a Unix socket's folder as `?host=` included."""
    url = required("DATABASE_URL", "name a PostgreSQL database, or start the embedded one with `make up`.")
    if urlsplit(url).scheme not in ("postgres", "postgresql"):
        raise ImproperlyConfigured("DATABASE_URL must name a PostgreSQL database: tenants live in its schemas.")
    try:
        config: dict[str, object] = environ.Env.db_url_config(url)
    except Exception as error:
        raise ImproperlyConfigured(
            "DATABASE_URL is not a database URL (postgres://user:password@host/name)."
        ) from error
    options: dict[str, object] = dict(config.get("OPTIONS") or {})  # type: ignore[call-overload]
    if "host" in options:
        config["HOST"] = options.pop("host")
    config["OPTIONS"] = PATIENCE_WITH_POSTGRESQL | options
    return config | {"ENGINE": "django_tenants.postgresql_backend", "CONN_MAX_AGE": 600, "CONN_HEALTH_CHECKS": True}


def secret_key(var: Path) -> str:
    """SECRET_KEY, or the random one that VAR keeps for an embedded stack."""
    if given := env.str("SECRET_KEY", default=""):
        return str(given)
    kept = var / "secret_key"
    if kept.exists():
        return kept.read_text()
    return required("SECRET_KEY", "give a long random value; `make up` makes one and keeps it.")
