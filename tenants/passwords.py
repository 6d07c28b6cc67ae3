"""Links by which a person sets a new password without a mail server: an admin makes one and passes it on."""

from django.contrib.auth.tokens import PasswordResetTokenGenerator
from django.urls import get_script_prefix, reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode
from django.utils.module_loading import import_string

from tenants.models import User


class ResetTokens(PasswordResetTokenGenerator):
    """Tokens that end with the first use, with PASSWORD_RESET_TIMEOUT, and with any change of what the account opens.

    The last is for links that a tenant's admin keeps in a drawer until the account is also a member elsewhere.
    """

    def _make_hash_value(self, user: User, timestamp: int) -> str:
        opens = sorted(str(pk) for pk in user.memberships.values_list("tenant_id", flat=True))
        rank = f"{user.is_staff}{user.is_superuser}"
        return f"{super()._make_hash_value(user, timestamp)}{opens}{rank}"


reset_tokens = ResetTokens()


def reset_path(user: User) -> str:
    """The path of a fresh link, below the address where it is going to be opened, without a leading '/'."""
    uid = urlsafe_base64_encode(force_bytes(user.pk))
    # The path is the same on every surface, and a command has no request that would say which one it is on.
    surface = import_string("tenantry.urls.TENANT_SURFACE")
    path = reverse(
        "password_reset_confirm", urlconf=surface, kwargs={"uidb64": uid, "token": reset_tokens.make_token(user)}
    )
    return path.removeprefix(get_script_prefix())
