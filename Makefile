# Developer commands; `make` alone lists them. `make demo` and `make test` need Python, make and git alone.
# Everything is written to this folder: .venv holds the tools, .nox the environments of the other
# test sessions, .node the Azure emulator, .demo the demo's output, .bench the benchmarks' data.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.SUFFIXES:

BIN := .venv/bin
UV := $(BIN)/uv --quiet
# Keep uv from using another active environment and from downloading a Python.
export VIRTUAL_ENV := $(CURDIR)/.venv
export UV_PYTHON_DOWNLOADS := never
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Keep the machine's own Airflow configuration out of everything that runs here.
unexport AIRFLOW_HOME AIRFLOW_CONFIG
# Containers often set this. Without cached bytecode, each of the tests' many processes compiles Airflow again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo up test test-integration test-airflow test-system lint format test-matrix test-storage \
	test-browser test-package dist docs bench constraints clean require-node require-chromium

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.package ## load a whole account into DuckDB in a real Airflow, and report its MRR
	@$(BIN)/python -m dev.demo

up: .venv/.package ## run the demo, then keep the Airflow UI open until Ctrl-C
	@$(BIN)/python -m dev.demo --stay

# A real Airflow mostly waits, so its tests run beside the others.
test: .venv/.tools ## run the unit, integration and quick system tests
	@$(MAKE) --jobs=2 test-integration test-airflow

# Many integration tests wait rather than compute, so there are more processes than most machines have cores.
test-integration: .venv/.tools
	@$(BIN)/python -m pytest --numprocesses 4 --dist worksteal tests/unit tests/integration

test-airflow: .venv/.tools
	@$(BIN)/python -m pytest --quiet tests/system -m 'not long'

# The long form has three hard days of 60 runs (30 minutes) and a backfill of 31 days (15 minutes);
# FORM=short has one hard day of 12 runs and a backfill of ten days.
FORM := long
test-system: .venv/.tools ## run the long system tests: every example, crashes, hard days, Celery (FORM=short)
	@SYSTEM_TESTS_FORM=$(FORM) $(BIN)/python -m pytest tests/system -m long --capture=no

lint: .venv/.tools ## run ruff and mypy, and check the files for GitHub against their schemas
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-forms \
		$(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))

format: .venv/.tools ## format the code and apply ruff's fixes
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

test-matrix: .venv/.tools ## run unit and integration tests on each supported Airflow, and a real 2.11
	@$(BIN)/nox

test-storage: require-node .venv/.tools ## test every object store, the warehouses and dbt (needs Node)
	@$(BIN)/nox --session storage

test-browser: require-chromium .venv/.tools ## test Airflow's UI: the connection and backfill forms (needs Chromium)
	@$(BIN)/nox --session browser-3.3 browser-2.11

test-package: .venv/.tools ## build the wheel and the sdist, resolve their extras, install and use them
	@$(BIN)/nox --session package

# Archives carry the commit's time, so that everyone who builds a version gets the same bytes.
dist: .venv/.tools ## build the wheel and the sdist that are published
	@rm -rf dist
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(UV) build --out-dir dist

# All of them run, even if one exceeds a limit.
bench: .venv/.bench ## measure transfers, walks, loads, thousands of waits and many tasks (ARGS=--quick, ARGS=--write-docs)
	@failed=0; for name in transfer small walk subscriptions loads waiting tasks; do \
		$(BIN)/python -m bench $$name $(ARGS) || failed=1; \
	done; exit $$failed

docs: .venv/.docs ## build the documentation in docs/_build; warnings are errors
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --nitpicky --builder html docs docs/_build
	@echo 'docs/_build/index.html'

# The demo and the tests run on this version of Airflow. Versions already in the file are kept where
# they still fit.
AIRFLOW := 3.3.2
constraints: .venv/.uv ## update constraints.txt (UPGRADE=--upgrade takes the newest version of everything)
	@echo 'apache-airflow==$(AIRFLOW)' | $(UV) pip compile - pyproject.toml \
		--universal --python-version 3.11 --extra amazon --extra duckdb --extra parquet --extra postgres \
		--group dev --group bench --group docs --group package \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links $(UPGRADE) --output-file constraints.txt
	@{ echo '# The versions that the demo and the tests use on Python 3.11 to 3.13. Written by `make constraints`.'; \
		cat constraints.txt; } > constraints.txt.new && mv constraints.txt.new constraints.txt

clean: ## remove everything that these targets created
	@rm -rf .venv .nox .node .demo .bench .screenshots docs/_build .hypothesis .mypy_cache .pytest_cache .ruff_cache \
		build dist .coverage .coverage.* htmlcov
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# --------------------------------------------------------------------------- required programs
# These come first among a target's prerequisites, so that a missing program is reported before
# anything is installed.

require-node:
	@for program in node npm; do if ! command -v $$program >/dev/null; then \
		echo "$$program is not installed; the tests' Azure emulator needs Node.js with npm." >&2; exit 1; fi; done

require-chromium:
	@for program in chromium chromium-browser google-chrome; do \
		if command -v $$program >/dev/null; then exit 0; fi; done; \
		echo 'Chromium is not installed; the tests of the Airflow UI run in it.' >&2; exit 1

# ------------------------------------------------------------------------------- environments
# Stamp files. An environment is rebuilt when a version or a dependency changes.

# Each candidate is executed, because a name on PATH may be a shim without a Python behind it, and a
# distribution's Python may lack venv.
.venv/.uv:
	@found=; for python in $(PYTHON) python3.12 python3.13 python3.11 python3; do \
		if $$python -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
			>/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo 'No Python 3.11, 3.12 or 3.13 with venv was found on PATH.' >&2; \
		echo 'Set one with `make PYTHON=/path/to/python …`.' >&2; exit 1; \
	fi; \
	echo "Creating .venv with $$($$found --version) …"; \
	rm -rf .venv && $$found -m venv .venv
	@$(BIN)/python -m pip install -qq $(if $(wildcard constraints.txt),-c constraints.txt) uv
	@touch $@

.venv/.package: pyproject.toml constraints.txt
	@rm -rf .venv && $(MAKE) .venv/.uv
	@echo 'Installing the package and Airflow …'
	@$(UV) pip install --editable '.[duckdb,parquet]' --constraints constraints.txt
	@touch $@

.venv/.tools: pyproject.toml constraints.txt .venv/.package
	@echo 'Installing the tests and tools …'
	@$(UV) pip install --editable '.[amazon,parquet]' --group dev --constraints constraints.txt
	@touch $@

.venv/.bench: pyproject.toml constraints.txt .venv/.package
	@echo 'Installing the benchmarks …'
	@$(UV) pip install --editable '.[amazon,duckdb,parquet,postgres]' --group bench --constraints constraints.txt
	@touch $@

.venv/.docs: pyproject.toml constraints.txt .venv/.package
	@echo 'Installing the documentation tools …'
	@$(UV) pip install --editable '.[parquet]' --group docs --constraints constraints.txt
	@touch $@
