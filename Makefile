# Every target needs Python 3.11 or later, make and git, nothing else. `make help` lists them.

VENV := .venv
BIN := $(VENV)/bin
# What runs podslots, and on top of it what develops it: the demo does without the second, which is four times as big.
RUNTIME := $(VENV)/.runtime-from-constraints
STAMP := $(VENV)/.made-from-constraints
MOTO := build/moto/.made-from-requirements
PROVIDER := build/provider/.made-from-requirements
# The first interpreter that is new enough and can make virtual environments.
FIND_PYTHON := for p in "$(PYTHON)" python3.11 python3 python3.12 python3.13 python3.14; do \
	command -v "$$p" >/dev/null 2>&1 && \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	echo "$$p" && break; done
# What pip does, in a line each: what it gets, and when it installs.
PIP_PROGRESS := /^(Collecting|Building) / { n++; printf "  %3d  %s\n", n, $$1 " " $$2; fflush() } \
	/^Installing collected/ { printf "  installing %d packages\n", NF - 3; fflush() }
COMMA := ,
# Tests start programs of ours by the hundred: compile them once, whatever the caller's shell says.
unexport PYTHONDONTWRITEBYTECODE
# $(call INSTALL,WHAT): install what pip is told, and show how it goes.
INSTALL = PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --progress-bar off --constraint constraints.txt \
	--editable '$(1)' 2>&1 | tee $(VENV)/pip.log | awk '$(PIP_PROGRESS)'; \
	grep -q '^Successfully installed' $(VENV)/pip.log || { cat $(VENV)/pip.log >&2; exit 1; }
SIMULATED := --pool manifests/examples/pool.yaml --trace docs/simulator/arrivals.csv
# For two cores: tests wait for other processes much of their time.
JOBS ?= 4
DEMO_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
BENCH_SOAK_ARGS ?=
SOAK_ARGS ?=

.PHONY: help venv demo picture binary roots moto provider test test-long soak manifests simulator screenshots lint format \
	bench bench-soak release-check constraints clean
.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(RUNTIME) ## Make .venv, with which podslots runs (other targets do it when needed, and add what they need)

# The environment is made anew if it was interrupted before it had pip. Ctrl-C shows no traceback of Python's.
$(RUNTIME): pyproject.toml constraints.txt
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then echo 'podslots needs Python 3.11 or later (with venv); none was found.' >&2; exit 1; fi; \
	echo "Setting up $(VENV) with $$($$python --version) (once)"; \
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && $(BIN)/pip --version >/dev/null 2>&1 \
		|| { errors=$$("$$python" -m venv --clear $(VENV) 2>&1 >&3); } 3>&1 \
		|| { case $$errors in *KeyboardInterrupt*) ;; *) echo "$$errors" >&2;; esac; exit 1; }
	@$(call INSTALL,.[local])
	@touch $@

$(STAMP): $(RUNTIME)
	@echo "Adding what tests and lint need (once)"
	@$(call INSTALL,.[local$(COMMA)dev])
	@touch $@

demo: $(RUNTIME) ## Half a minute, once it is set up: 15 tasks, a pool from 0 to 5 Pods to 0. DEMO_ARGS=--unattended judges the run
	@$(BIN)/python -m controller.demo $(DEMO_ARGS)

picture: $(RUNTIME) ## Draw a run of the demo for the README, as an SVG that moves
	@COLUMNS=80 $(BIN)/python -m controller.demo --unattended --picture docs/images/demo.svg

binary: $(STAMP) ## Build dist/slot-agent, one file that runs in any Linux image (needs gcc)
	@$(BIN)/python -m binary

roots: ## As root, with debootstrap: an old Debian in build/roots, for the tests of the binary
	@[ -e build/roots/complete ] || { rm -rf build/roots; mkdir -p build/roots; \
	debootstrap --foreign --variant=minbase bullseye build/roots/bullseye >build/roots/log 2>&1 \
	&& rm -rf build/roots/bullseye/var/cache/apt/archives build/roots/bullseye/usr/share && touch build/roots/complete \
	|| { tail build/roots/log >&2; exit 1; }; }

moto: $(MOTO) ## A fake AWS in build/moto, for the tests with real Terraform (`make test-long` makes it if there is terraform)

$(MOTO): tests/support/moto.txt | $(STAMP)
	@echo "Setting up build/moto (once; a quarter of a minute)"; \
	$(BIN)/python -m venv --clear build/moto
	@PIP_DISABLE_PIP_VERSION_CHECK=1 build/moto/bin/python -m pip install --quiet --progress-bar off --requirement tests/support/moto.txt
	@touch $@

provider: $(PROVIDER) ## What runs a Terraform provider of our own, in build/provider (`make test-long` makes it if there is terraform)

$(PROVIDER): tests/support/tf.txt | $(STAMP)
	@echo "Setting up build/provider (once; a few seconds)"; \
	$(BIN)/python -m venv --clear build/provider
	@PIP_DISABLE_PIP_VERSION_CHECK=1 build/provider/bin/python -m pip install --quiet --progress-bar off --requirement tests/support/tf.txt
	@touch $@

test: $(STAMP) ## All tests but the long ones, in about six minutes (PYTEST_ARGS is passed on)
	@PYTHONHASHSEED=0 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m "not long" $(PYTEST_ARGS)

test-long: $(STAMP) ## The tests that are long by nature: many seeds, planted bugs, chaos, the bench (PYTEST_ARGS is passed on)
	@! command -v terraform >/dev/null || $(MAKE) --no-print-directory --keep-going moto provider || true  # those that need it say so
	@PYTHONHASHSEED=0 $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal -m long $(PYTEST_ARGS)

soak: $(STAMP) ## Faults for five minutes, then judgement; 10^6 simulated steps; the planted bugs; new examples of properties. SOAK_ARGS="--seconds 60 --seed 7"
	@$(BIN)/python -m tests.chaos $(SOAK_ARGS)
	@$(BIN)/python -m tests.simulation --steps 1000000
	@$(BIN)/python -m tests.simulation --planted --seeds 0:200
	@$(BIN)/python -m pytest -q -n $(JOBS) -m "long or not long" --hypothesis-profile=search tests/properties

manifests: $(STAMP) ## Write what is generated: manifests/protection, install.yaml, rules, dashboards, docs/reference, docs/metrics.md
	@$(BIN)/python -m manifests

simulator: $(STAMP) ## Simulate the day of docs/simulator again: its picture, and its table in docs/simulator.md
	@mkdir -p build && { echo '```console'; echo '$$ podslots simulate $(SIMULATED)'; \
		$(BIN)/podslots simulate $(SIMULATED) --plot docs/simulator/course.svg; echo '```'; } >build/simulated
	@sed -i -e '/^<!-- begin simulated/,/^<!-- end simulated/{//!d}' -e '/^<!-- begin simulated/r build/simulated' docs/simulator.md

lint: $(STAMP) ## ruff, mypy --strict, the layers between packages, manifests and Dockerfiles
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { $(BIN)/ruff format --check .; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m manifests --check
	@$(BIN)/python -m manifests.check
	@$(BIN)/hadolint Dockerfile.agent Dockerfile.controller

format: $(STAMP) ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix-only .

bench: $(STAMP) ## Each figure of tests/bench beside its reference, measured in the same run
	@$(BIN)/python -m tests.bench $(BENCH_ARGS)

bench-soak: $(STAMP) ## 100 000 tasks through one agent: its memory and descriptors stay flat. BENCH_SOAK_ARGS="--tasks 5000"
	@$(BIN)/python -m tests.bench.soak $(BENCH_SOAK_ARGS)

release-check: $(STAMP) ## Build all that a release has into dist/release, and say how large it is: wheel, images' layers, lists of packages
	@$(BIN)/python -m binary.release

screenshots: $(STAMP) ## Pictures of the status page, into docs/images (needs Debian's chromium)
	@$(BIN)/python -m tests.screenshots

constraints: $(STAMP) ## Pin the newest versions of everything in constraints.txt
	@$(BIN)/pip-compile --quiet --upgrade --extra local --extra dev --strip-extras --allow-unsafe --no-header \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --output-file constraints.txt pyproject.toml

clean: ## Remove what the other targets made
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .podslots
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
