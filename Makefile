# Everything a developer types. Only python3 (3.11 or newer) and make must be there before.
PYTHON ?= python3
ARGS ?=
PGBOUNCER ?= pgbouncer
PROCESSES ?= 2
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal
LOCK := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --quiet

.DEFAULT_GOAL := help
.PHONY: help setup run test test-pgbouncer chaos bench bench-memory bench-memory-scale check deploy-check lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.complete ## make the virtual environment with the locked dependencies

.venv/.complete: requirements-dev.txt requirements-local.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=…")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-conflicts --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-local.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: setup ## run everything on this machine, e.g. make run ARGS="--port 9000 --workers 2"
	@$(BIN)/switchboard dev $(ARGS)

test: setup ## run the tests against real servers, e.g. make test ARGS="tests/sql -x" PROCESSES=0
	@$(PYTEST) $(ARGS)

test-pgbouncer: setup ## try to cross tenants again behind a PgBouncer in transaction mode (PGBOUNCER=program)
	@SWITCHBOARD_DB_PREPARED_STATEMENTS=false $(PYTEST) --pgbouncer=$(PGBOUNCER) \
		tests/tenants/test_crossing*.py tests/turn/test_turn.py $(ARGS)

chaos: setup ## kill, freeze and cut everything under load, e.g. make chaos ARGS="--seed 7"
	@$(BIN)/python -m tests.chaos $(ARGS)

bench: setup ## measure the queue beside stock arq, e.g. make bench ARGS="noop --fsync always"
	@$(BIN)/python -m benchmarks $(ARGS)

bench-memory: setup ## what memory finds on LoCoMo: make bench-memory DATA=…/locomo10.json
	@$(BIN)/python -m benchmarks.memory --data "$(DATA)" $(ARGS)

bench-memory-scale: setup ## how fast it is with a million memories of a thousand tenants
	@$(BIN)/python -m benchmarks.memory --scale $(ARGS)

check: setup ## lint, format, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

deploy-check: setup ## what hadolint, schemas and promtool say of the deploy files
	@deploy/check.sh

lock: setup ## pin the dependencies of pyproject.toml anew
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(LOCK) -o requirements.txt
	$(LOCK) --extra dev --extra local -o requirements-dev.txt
	$(LOCK:pyproject.toml=requirements-local.in) --no-deps -o requirements-local.txt

clean: ## remove the environment, the caches and the development data
	rm -rf .venv .dev build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
