# What a developer types. `make` alone lists it. Everything is made in this folder: .venv for the
# tools, .nox for the other versions of Airflow and for the stores, .node for a store that is a program
# for Node, .demo for what the demo leaves, .bench for what benchmarks measure with.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.SUFFIXES:

BIN := .venv/bin
UV := $(BIN)/uv --quiet
# uv must neither pick another environment that happens to be active nor fetch a Python of its own.
export VIRTUAL_ENV := $(CURDIR)/.venv
export UV_PYTHON_DOWNLOADS := never
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Airflow's settings of the machine have no part in what runs here.
unexport AIRFLOW_HOME AIRFLOW_CONFIG

.PHONY: help demo up test test-system lint format test-matrix test-storage test-browser test-package dist docs bench \
	constraints clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.package ## one day of activities, end to end, in a real Airflow on this machine
	@$(BIN)/python -m dev.demo

up: .venv/.package ## the same, and the Airflow page stays open until Ctrl-C
	@$(BIN)/python -m dev.demo --stay

# Most of these wait more than they work, a file of them for minutes.
test: .venv/.tools ## unit, integration and system tests, but for those that take minutes each
	@$(BIN)/python -m pytest --numprocesses 4 --dist worksteal tests/unit tests/integration
	@$(BIN)/python -m pytest tests/system -m 'not long'

# Three hard days of 60 runs take half an hour, a backfill of 31 days a quarter; FORM=short is a day of 12, and ten days.
FORM := long
test-system: .venv/.tools ## the system tests that take long: every example, crashes, hard days, Celery (FORM=short)
	@if ! command -v redis-server >/dev/null; then \
		echo "This machine has no redis-server, which the test with CeleryExecutor needs." >&2; exit 1; fi
	@SYSTEM_TESTS_FORM=$(FORM) $(BIN)/python -m pytest tests/system -m long --capture=no

lint: .venv/.tools ## ruff, mypy, and the schemas of the workflows
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml

format: .venv/.tools ## let ruff put the code in order
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

test-matrix: .venv/.tools ## unit and integration tests on each Airflow from 2.11 on, a real 2.11 too
	@$(BIN)/nox

test-storage: .venv/.tools ## every store (S3, Google Cloud Storage, Azure: needs Node), warehouses and dbt
	@for tool in node npm; do if ! command -v $$tool >/dev/null; then \
		echo "This machine has no $$tool, which the Azure store of the tests needs." >&2; exit 1; fi; done
	@$(BIN)/nox --session storage

test-browser: .venv/.tools ## Airflow's page in a real browser: the connection form, the backfill form (needs Chromium)
	@if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null \
		&& ! command -v google-chrome >/dev/null; then \
		echo "This machine has no Chromium, in which the tests look at Airflow's page." >&2; exit 1; fi
	@$(BIN)/nox --session browser-3.3 browser-2.11

test-package: .venv/.tools ## the wheel and the sdist: built twice, installed in empty environments, used
	@$(BIN)/nox --session package

# The time in an archive is the commit's, so that whoever builds a version gets the same bytes.
dist: .venv/.tools ## build wheel and sdist, as they are published
	@rm -rf dist
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(UV) build --out-dir dist

bench: .venv/.bench ## what a transfer, thousands of waits and many tasks cost (ARGS=--quick, ARGS=--write-readme)
	@$(BIN)/python -m bench transfer $(ARGS)
	@$(BIN)/python -m bench waiting $(ARGS)
	@$(BIN)/python -m bench tasks $(ARGS)

docs: .venv/.docs ## the documentation, as pages in docs/_build; a warning is an error
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --nitpicky --builder html docs docs/_build
	@echo 'docs/_build/index.html'

# The version of Airflow is the one the demo and the tests run on. What is already in the file stays
# as it is where it still fits; `make constraints UPGRADE=--upgrade` takes the newest of everything.
AIRFLOW := 3.3.2
constraints: .venv/.uv ## write constraints.txt anew (UPGRADE=--upgrade: with the newest of everything)
	@echo 'apache-airflow==$(AIRFLOW)' | $(UV) pip compile - pyproject.toml \
		--universal --python-version 3.11 --extra amazon --extra parquet --group dev --group bench --group docs \
		--group package \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links $(UPGRADE) --output-file constraints.txt
	@{ echo '# The versions everything here is tried with, on Python 3.11 to 3.13. Written by `make constraints`.'; \
		cat constraints.txt; } > constraints.txt.new && mv constraints.txt.new constraints.txt

clean: ## remove all that was made here
	@rm -rf .venv .nox .node .demo .bench .screenshots docs/_build .hypothesis .mypy_cache .pytest_cache .ruff_cache \
		build dist .coverage .coverage.* htmlcov
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# ---------------------------------------------------------------------------------- the environment
# Stamp files: made once, and anew when a version or a dependency changes.

# Each candidate is tried by running it: a name on PATH may be a shim with nothing behind it, and a
# distribution's Python may come without venv.
.venv/.uv:
	@found=; for python in $(PYTHON) python3.12 python3.13 python3.11 python3; do \
		if $$python -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
			>/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo 'Python 3.11, 3.12 or 3.13 with venv is needed, and none was found on PATH.' >&2; \
		echo 'Name one with `make PYTHON=/path/to/python …`.' >&2; exit 1; \
	fi; \
	echo "Making .venv with $$($$found --version) …"; \
	rm -rf .venv && $$found -m venv .venv
	@$(BIN)/python -m pip install -qq $(if $(wildcard constraints.txt),-c constraints.txt) uv
	@touch $@

.venv/.package: pyproject.toml constraints.txt
	@rm -rf .venv && $(MAKE) .venv/.uv
	@echo 'Installing the package and Airflow …'
	@$(UV) pip install --editable . --constraints constraints.txt
	@touch $@

.venv/.tools: pyproject.toml constraints.txt .venv/.package
	@echo 'Installing what the tests and checks need …'
	@$(UV) pip install --editable '.[amazon,parquet]' --group dev --constraints constraints.txt
	@touch $@

.venv/.bench: pyproject.toml constraints.txt .venv/.package
	@echo 'Installing what the benchmarks need …'
	@$(UV) pip install --editable '.[parquet]' --group bench --constraints constraints.txt
	@touch $@

.venv/.docs: pyproject.toml constraints.txt .venv/.package
	@echo 'Installing what the documentation needs …'
	@$(UV) pip install --editable '.[parquet]' --group docs --constraints constraints.txt
	@touch $@
