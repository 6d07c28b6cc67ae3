# syntax=docker/dockerfile:1
# One image for every process; the command decides which. docker-compose.yml and heroku.yml name the commands.

# Debian 12 with Python 3.11, which the tests run on.
FROM python:3.11-slim-bookworm AS build
# Where torch comes from. PyPI's wheel of it brings gigabytes of CUDA libraries; give an empty value to take that one.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY pyproject.toml requirements.txt README.md ./
# requirements.txt holds the tests' packages too, so it is used as constraints: what pyproject.toml asks for, at the
# versions locked. torch comes first, alone, so that its index serves nothing else.
RUN grep -v '^-e' requirements.txt > /tmp/constraints.txt \
    && pip install --constraint /tmp/constraints.txt --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch \
    && pip install --constraint /tmp/constraints.txt --editable .

FROM python:3.11-slim-bookworm
# libseccomp2 is what confines the runners.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libseccomp2 \
    && rm -rf /var/lib/apt/lists/*
# One user id in all containers: it owns the folder of sockets that web, workers and model host share.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin tenantry \
    && install -d -o tenantry -g tenantry -m 0700 /var/lib/tenantry /run/tenantry /var/lib/tenantry/library-sets
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY . .
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    WEB_HOST=0.0.0.0 \
    PORT=8000 \
    TENANTRY_VAR=/var/lib/tenantry \
    STATIC_ROOT=/app/static_root
# The settings want addresses, and collecting files uses none of them: these stand for nothing and stay in no layer.
RUN SECRET_KEY=build DATABASE_URL=postgres://build/build REDIS_URL=redis://build TENANTRY_VAR=/tmp/build \
    python manage.py collectstatic --noinput --verbosity 0 && rm -r /tmp/build
USER 10001:10001
EXPOSE 8000
CMD ["deploy/run", "web"]
