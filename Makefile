# Heimdall's commands; `make help` lists them.
#   ARGS       flags for the server:   make run ARGS="--log-level debug"
#   TEST_ARGS  arguments for pytest:   make test TEST_ARGS="tests/unit -k wire"
#   JOBS       processes for pytest:   make test JOBS=1   (4, or none of their own with TEST_ARGS)
#   MINUTES    how long the soak goes on:  make soak MINUTES=60
#   BUILD_ARGS words for docker build:  make image BUILD_ARGS="--build-arg PYTHON_VERSION=3.13"
#   PYTHON     the Python for .venv:   make run PYTHON=python3.12   (after make clean)

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes
# Most tests wait for real processes. A part of them is sooner there in one process.
JOBS ?= $(if $(TEST_ARGS),0,4)
PYTEST := $(BIN)/python -m pytest
PARALLEL := --numprocesses $(JOBS) --dist worksteal
IMAGE := heimdall
SOURCES := heimdall.py heimdall_lib tests benchmarks charts
MINUTES := 10
COVERAGE_MINIMUM := 95
# The modules without I/O, and the two on which every miss waits: every branch can be reached by a test, so every one is.
FLOORS := plain wire chain cookies rdata spelling query reply lifetime entry doorkeeper buckets flight breaker memory_cache popularity new_names invalidations tally series settings stats errors pause datagrams mmsg

# Debian keeps nsd and ip where a user's PATH may not look.
export PATH := $(PATH):/usr/sbin:/sbin

comma := ,
empty :=
space := $(empty) $(empty)
FLOOR_FILES := $(subst $(space),$(comma),$(foreach floor,$(FLOORS),heimdall_lib/$(floor).py$(comma)heimdall_lib/$(floor)/*))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

.PHONY: help
help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F '|' '{ printf "%-22s %s\n", $$1, $$2 }'

.PHONY: run
run: $(VENV)/.runtime ## start the server (ARGS="--flag …")
	@exec $(BIN)/python heimdall.py $(ARGS)

.PHONY: test
test: $(VENV)/.dev ## run the tests (TEST_ARGS="…" for pytest)
	@.ci/install-test-programs
	@$(PYTEST) $(PARALLEL) $(TEST_ARGS)

.PHONY: check
check: lint coverage ## everything that must hold: format, lint, types, floors, tests, coverage

.PHONY: lint
lint: $(VENV)/.dev ## format, lint, types, floors, weaknesses and the Dockerfile, without the tests
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy $(wildcard $(SOURCES))
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/bandit --quiet --configfile pyproject.toml --recursive heimdall.py heimdall_lib
	@$(BIN)/hadolint Dockerfile

.PHONY: coverage
coverage: $(VENV)/.dev ## run the tests and hold them to the coverage thresholds
	@.ci/install-test-programs
	@rm -f .coverage .coverage.*
	@$(PYTEST) $(PARALLEL) --cov --cov-report= $(TEST_ARGS)
	@$(BIN)/coverage report --fail-under=$(COVERAGE_MINIMUM)
	@$(BIN)/coverage report --include='$(FLOOR_FILES)' --fail-under=100

.PHONY: conformance
conformance: $(VENV)/.dev ## run the tests of docs/conformance.md: what the RFCs ask, over real sockets, about a minute
	@$(PYTEST) $(PARALLEL) tests/conformance $(TEST_ARGS)

.PHONY: fuzz
fuzz: $(VENV)/.dev ## try inputs that nobody sends in good faith (SECONDS=60, TARGET="query reply", SEED=…, COUNT=… of each)
	@$(BIN)/python -m tests.fuzz $(TARGET) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) \
	    $(if $(COUNT),--count $(COUNT))

.PHONY: bench
bench: $(VENV)/.runtime ## measure beside other DNS servers, about 25 minutes (SCENARIO="l1 miss" for a part, BENCH_ARGS="…")
	@benchmarks/install-programs
	@$(BIN)/python -m benchmarks run $(SCENARIO) $(BENCH_ARGS)

.PHONY: soak
soak: $(VENV)/.runtime ## mixed load with outages, while what the server holds is watched (MINUTES=10)
	@benchmarks/install-programs
	@$(BIN)/python -m benchmarks.soak --minutes $(MINUTES)

.PHONY: bench-report
bench-report: $(VENV)/.runtime ## write the last measurement into docs/ and its charts
	@$(BIN)/python -m benchmarks report

.PHONY: test-container
test-container: $(VENV)/.dev ## build and run the image and the compose stack (needs a Docker engine)
	@HEIMDALL_TEST_BUILD_ARGS="$(BUILD_ARGS)" $(PYTEST) -m container tests/container $(TEST_ARGS)

.PHONY: format
format: $(VENV)/.dev ## format the code and fix what can be fixed
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

.PHONY: manifests
manifests: $(VENV)/.dev ## write k8s/ and the table in the chart's README from the chart
	@$(BIN)/python -m charts.generate

.PHONY: image
image: ## build the container image (IMAGE=name:tag, BUILD_ARGS="--build-arg …")
	docker build --tag $(IMAGE) --build-arg REVISION="$$(git rev-parse HEAD)" \
	    --build-arg CREATED="$$(git show --no-patch --format=%cI)" $(BUILD_ARGS) .

.PHONY: requirements
requirements: $(VENV)/.dev ## pin requirements*.txt anew from requirements*.in
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@for name in requirements requirements-dev; do \
	    $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade --no-header \
	        --no-strip-extras --no-emit-index-url --no-emit-find-links --output-file $$name.txt $$name.in || exit; done

.PHONY: audit
audit: $(VENV)/.dev ## look the pinned requirements up among known vulnerabilities (asks the internet)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	@$(BIN)/pip-audit --require-hashes --disable-pip --requirement requirements.txt
	@$(BIN)/pip-audit --require-hashes --disable-pip --requirement requirements-dev.txt

.PHONY: clean
clean: ## remove the virtual environment and everything that was made
	@rm -rf $(VENV) .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# An environment whose Python has gone (an upgrade, a moved directory) is made and filled again.
$(shell test -x $(BIN)/python || rm -f $(VENV)/.runtime $(VENV)/.dev)

$(BIN)/python:
	@python=$$(.ci/find-python) && $$python -m venv --clear $(VENV)

$(VENV)/.runtime: requirements.txt | $(BIN)/python
	@echo "Installing Heimdall's requirements into $(VENV)" >&2
	@$(PIP_INSTALL) --requirement requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	@echo "Installing the tests' requirements into $(VENV)" >&2
	@$(PIP_INSTALL) --requirement requirements-dev.txt
	@touch $@
