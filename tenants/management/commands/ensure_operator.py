"""Makes the first operator."""

import json
import os
import secrets
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import transaction

from tenants.models import User

EMAIL = "operator@localhost"


class Command(BaseCommand):
    help = "Make an operator with a random password if there is none; the password is kept in VAR/operator.json."

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        if User.objects.filter(is_superuser=True).exists():
            return
        password = secrets.token_urlsafe(15)
        User.objects.create_superuser(EMAIL, password)
        kept = Path(settings.VAR) / "operator.json"
        unfinished = kept.with_suffix(".new")  # whoever finds the file finds all of it
        unfinished.unlink(missing_ok=True)
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({"email": EMAIL, "password": password}, file)
        unfinished.rename(kept)
        if options["verbosity"]:  # `make up` shows it itself
            self.stdout.write(f"operator made: {EMAIL} with the password {password} (shown once, kept in {kept})")
