# Tests mostly wait: for processes to start, leases to run out, servers to come back. So there may be more than cores.
JOBS ?= 3
OTHER_PYTHONS := 3.12 3.13
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
PYTEST := .venv/bin/python -m pytest
# Lines that must not drown in the output of a long run.
LOUD := printf '\n!!! %s\n\n'

.DEFAULT_GOAL := help
# The suites start servers and workers: one at a time, whatever -j says.
.NOTPARALLEL:

.PHONY: help
help: ## show this list
	@sed -n 's/^\([a-z][a-z.%-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

.PHONY: demo
demo: .venv/installed ## see it work, in a minute
	.venv/bin/penstock demo

.PHONY: test
test: test-main $(OTHER_PYTHONS:%=test-%) test-acceptance ## every test; the quick ones also on other Pythons
	@echo "all tests passed"

.PHONY: test-main
test-main: .venv/installed servers ## every test but the acceptance tests
	$(PYTEST) -n $(JOBS) --dist loadgroup --ignore=tests/acceptance

.PHONY: test-acceptance
test-acceptance: .venv/installed servers ## real processes and servers, killed on purpose
	$(PYTEST) -n $(JOBS) --dist loadgroup tests/acceptance

# Of each fault, for each cluster: ten take an hour, three a quarter of one.
FAULTS ?= 3

.PHONY: test-ha
test-ha: .venv/installed servers ## clusters that lose their leader; FAULTS=10 for all, as root
	$(PYTEST) tests/ha --faults=$(FAULTS) --timeout=3600

.PHONY: servers
servers: ## install Redis, RabbitMQ and PostgreSQL for the tests, if this may
	@tools/install-servers

# What servers do does not hang on our Python: they are tested once.
test-%: ## the quick tests on another Python, e.g. test-3.13
	@if tools/find-python $* >/dev/null; then \
		$(MAKE) --no-print-directory .venv-$*/installed && \
		.venv-$*/bin/python -m pytest -n $(JOBS) -p no:cacheprovider -m "not extended and not network" \
			tests/unit tests/conformance; \
	else \
		$(LOUD) "NOT TESTED on Python $*: none on PATH nor under pyenv"; \
	fi

.PHONY: check
check: .venv/installed ## format, lint and types; changes nothing
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

.PHONY: fmt
fmt: .venv/installed ## format, and repair what the linter can
	.venv/bin/ruff check --fix-only .
	.venv/bin/ruff format .

.PHONY: bench
bench: .venv/installed ## measure on this machine
	.venv/bin/python -m bench

.PHONY: bench-engines
bench-engines: .venv/installed ## measure Redis, RabbitMQ and PostgreSQL, beside raw loops and other queues
	.venv/bin/python -m bench.engines

.PHONY: bench-broker
bench-broker: .venv/installed ## measure penstock broker, beside the embedded engine and Redis
	.venv/bin/python -m bench.broker

.PHONY: bench-pressure
bench-pressure: .venv/installed ## measure back pressure under three times the load, beside the simulation
	.venv/bin/python -m bench.pressure

.PHONY: docs
docs: .venv/installed-docs ## build the manual into site/
	.venv/bin/mkdocs build --clean --strict

.PHONY: clean
clean: ## remove all that make made, the environments too
	rm -rf .venv .venv-* site dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests $(wildcard bench) -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: pyproject.toml requirements-dev.txt
	@python=$$(tools/find-python) || { \
		$(LOUD) "Penstock needs Python 3.11 or newer with venv: install python3.11 and python3.11-venv, or use pyenv"; \
		exit 1; \
	}; \
	echo "making .venv with $$python" && "$$python" -m venv .venv
	.venv/bin/python $(PIP_INSTALL) -e '.[progress]' -r requirements-dev.txt
	@touch $@

.venv-%/installed: pyproject.toml requirements-dev.txt
	$$(tools/find-python $*) -m venv .venv-$*
	.venv-$*/bin/python $(PIP_INSTALL) -e '.[progress]' -r requirements-dev.txt
	@touch $@

.venv/installed-docs: .venv/installed requirements-docs.txt
	.venv/bin/python $(PIP_INSTALL) -r requirements-docs.txt
	@touch $@
