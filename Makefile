# Run `make` for the list of commands.

PYTHON ?= python3
PORT ?= 8000
BIND ?= 127.0.0.1
VAR ?= var

BIN := .venv/bin
STACK := $(BIN)/python -m tenantry.stack
# Settings that no server needs to be there for are still read at import, so these commands get servers of their own.
BESIDE_SERVERS := $(STACK) servers --

.DEFAULT_GOAL := help
.PHONY: help up demo test check imports migrations types screenshots bench bench-peers lock clean install

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "Variables: PORT=$(PORT) (up), BIND=$(BIND) (up), VAR=$(VAR) (up, demo: the folder of everything that is kept),"
	@echo "PYTHON=$(PYTHON) (makes .venv), UPGRADE=1 (lock: newest versions), ALL=folder (screenshots: every picture)"

up: install ## Run the whole platform in the foreground until Ctrl-C
	@exec $(STACK) up --port "$(PORT)" --host "$(BIND)" --var "$(VAR)"

demo: install ## Start the platform, show what it does over HTTP, stop it
	@exec $(STACK) run --var "$(VAR)" -- $(BIN)/python -m clients.demo

test: install ## Run every test, on servers of their own
	@exec $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

check: install ## Check style, types, imports and migrations, then run every test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@# Tests wait for processes a good part of their time, and the others do not.
	$(MAKE) --jobs=2 test imports migrations types

imports: install
	$(BIN)/lint-imports

migrations: install
	$(BESIDE_SERVERS) $(BIN)/python manage.py makemigrations --check --dry-run

types: install
	$(BESIDE_SERVERS) $(BIN)/mypy .

screenshots: install ## Take the documents' pictures of the pages from a platform of their own (needs Chromium)
	@exec $(STACK) run --var "$(VAR)/screenshots" -- $(BIN)/python -m clients.screenshots $(if $(ALL),--all "$(ALL)")

bench: install ## Measure predictions of this checkout, quickly (needs wrk)
	$(BIN)/python -m benchmarks.serving --seconds 3 --out .bench/quick.json

bench-peers: install ## Measure them side by side with other servers, which are installed first (half an hour; needs wrk)
	$(BIN)/python -m benchmarks.serving --peers usual --seconds 5 --rounds 3

LOCK_OPTIONS := --strip-extras --no-emit-find-links --no-emit-index-url --no-emit-trusted-host --extra boosting --extra dev

lock: install ## Write requirements.txt from pyproject.toml
	@# What is locked already stays as it is, unless pyproject.toml or UPGRADE=1 asks for another version.
	@sed '/^-e /d' requirements.txt > .venv/lock.txt
	$(BIN)/pip-compile --quiet --no-header $(LOCK_OPTIONS) $(if $(UPGRADE),--upgrade) --output-file .venv/lock.txt pyproject.toml
	@# The CPU build's local version is not on PyPI, and either build satisfies the plain one.
	@{ sed -n '1,/^#/p' requirements.txt; sed -E -e 's/^(torch==[0-9.]+)\+cpu$$/\1/' -e '/^$$/,$$d' .venv/lock.txt; } > .venv/requirements.txt
	@mv .venv/requirements.txt requirements.txt

clean: ## Remove .venv and caches; VAR stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './var/*' -prune -exec rm -rf {} +

install: # .venv, made when it is missing or requirements.txt has changed
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed: $(PYTHON) is not there." >&2; exit 1; }
	@$(PYTHON) platform/tenantry/stack/install.py
