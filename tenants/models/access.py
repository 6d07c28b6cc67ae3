"""Who may come in: people, their roles in tenants, and tokens."""

import hashlib
import secrets
import uuid
from typing import Any, ClassVar, Self

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils import timezone

from tenants.models.tenancy import Tenant

TOKEN_BYTES = 32
PASSWORD_BYTES = 20
LIGHT_ITERATIONS = 1000


class Scope(models.TextChoices):
    """What a caller may do; `admin` includes `write`, which includes `read` and `predict`."""

    READ = "read", "Read"
    PREDICT = "predict", "Predict"
    WRITE = "write", "Write"
    ADMIN = "admin", "Administer"


class Role(models.TextChoices):
    """What a person is in a tenant."""

    VIEWER = "viewer", "Viewer"
    DATA_SCIENTIST = "data_scientist", "Data scientist"
    ADMIN = "admin", "Admin"

    @property
    def scope(self) -> Scope:
        """The widest scope of this role."""
        return {Role.VIEWER: Scope.READ, Role.DATA_SCIENTIST: Scope.WRITE, Role.ADMIN: Scope.ADMIN}[self]


class UserManager(BaseUserManager["User"]):
    """Makes users by their email address."""

    def create_with_random_password(self, email: str) -> tuple["User", str]:
        """A saved user and the first password, which is nowhere else."""
        user = self.model(email=self.normalize_email(email).lower())
        password = user.set_random_password()
        user.save()
        return user, password

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """A saved user; without a password nobody can log in as it until one is set."""
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save()
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """A saved operator."""
        return self.create_user(email, password, **fields | {"is_staff": True, "is_superuser": True})

    def get_by_natural_key(self, username: str | None) -> "User":
        return self.get(email=(username or "").lower())


class User(AbstractBaseUser, PermissionsMixin):
    """A person. `is_superuser` is an operator; everybody else is what their memberships say."""

    email = models.EmailField(unique=True, max_length=254)
    name = models.CharField(max_length=200, blank=True)
    is_staff = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    date_joined = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[UserManager] = UserManager()

    EMAIL_FIELD = "email"
    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        constraints = (models.UniqueConstraint(Lower("email"), name="tenants_user_email_any_case"),)

    def __str__(self) -> str:
        return self.email

    def set_random_password(self) -> str:
        """Give this person a new password and return it; the caller saves.

        It has 160 random bits, so it is hashed lightly: a slow hash would add a third of a second to making a tenant
        and nothing else. Django hashes it in full at the first login.
        """
        password = secrets.token_urlsafe(PASSWORD_BYTES)
        hasher = PBKDF2PasswordHasher()
        self.password = hasher.encode(password, hasher.salt(), iterations=LIGHT_ITERATIONS)
        return password


class Membership(models.Model):
    """A person's role in a tenant."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role, default=Role.VIEWER)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("user__email",)
        constraints = (models.UniqueConstraint(fields=["tenant", "user"], name="tenants_membership_once"),)

    def __str__(self) -> str:
        return f"{self.user} in {self.tenant}: {self.role}"


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    """Sets of tokens."""

    def usable(self) -> Self:
        """Neither revoked nor expired."""
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()), revoked_at=None)

    def by_secret(self, secret: str) -> Self:
        """The token whose secret this is: one row or none."""
        return self.filter(secret_sha256=digest(secret))


class ApiToken(models.Model):
    """A bearer token: a tenant's, or an operator's for the tenants it lists (or all).

    Only the SHA-256 of the secret is kept: it has 256 random bits, so a slow hash would add a quarter of a second to
    each request and nothing else.
    """

    uuid = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100)
    secret_sha256 = models.CharField(max_length=64, unique=True, editable=False)
    hint = models.CharField(max_length=12, editable=False)
    scopes = ArrayField(models.CharField(max_length=10, choices=Scope))
    tenant = models.ForeignKey(Tenant, null=True, on_delete=models.CASCADE, related_name="tokens")
    tenants = models.ManyToManyField(Tenant, related_name="operator_tokens")
    all_tenants = models.BooleanField(default=False)
    created_by = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)

    objects = ApiTokenQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)
        constraints = (
            models.CheckConstraint(
                condition=Q(tenant=None) | Q(all_tenants=False), name="tenants_token_of_one_tenant_or_operator"
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.hint}…)"

    @classmethod
    def mint(cls, **fields: Any) -> tuple["ApiToken", str]:
        """A saved token and its secret, which is nowhere else."""
        secret = f"tny_{secrets.token_urlsafe(TOKEN_BYTES)}"
        return cls.objects.create(secret_sha256=digest(secret), hint=secret[:8], **fields), secret

    @property
    def is_operator(self) -> bool:
        """Whether it is an operator's rather than a tenant's."""
        return self.tenant_id is None

    @property
    def is_usable(self) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > timezone.now())


def digest(secret: str) -> str:
    """What is kept of a token's secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
