"""The embedded stack: PostgreSQL, Valkey and the processes of the Procfile, run by one command.

Plain Python, without Django, so that it starts at once. `python -m tenantry.stack --help` says what it does.
"""
