# `make help` lists the targets. Everything is installed into .venv; nothing outside this folder is touched.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
CONFIG ?= configs/four-gpus.yaml
FOLDER ?= results/four-gpus
N ?= 4
PORT ?= 10006

.PHONY: help demo demo-smoke demo-cluster demo-cluster-smoke test test-browser test-cluster check format docs shots run plan check-config status report monitor start-servers stop-servers bench scaling outages crash-test crash-jobs nights test-servers assets browser clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  CONFIG=$(CONFIG)  FOLDER=$(FOLDER)  N=$(N)  PORT=$(PORT)  ARGS=(flags for the command)"

demo: .venv/server ## Four generation servers turn twelve images into 3D splats (results in demo/)
	@PYTHON=$(CURDIR)/$(BIN)/python scripts/demo.sh

demo-smoke: ## Run the demo twice and check what it left
	@scripts/demo_smoke.sh

demo-cluster: .venv/all ## The demo on two Dask workers, into a bucket of an S3 server on loopback (report in demo/cluster)
	@PYTHON=$(CURDIR)/$(BIN)/python scripts/demo_cluster.sh

demo-cluster-smoke: ## Run it, with its list twice, and check what is in the bucket
	@scripts/demo_cluster_smoke.sh

test: .venv/all ## Run the tests
	@$(BIN)/python -m pytest -q -n 4

test-browser: .venv/all ## Run the tests that open reports in a real Chromium (make browser installs it; 2 minutes)
	@$(BIN)/python -m pytest -q -m browser -n 2 --dist loadfile

test-cluster: .venv/all ## Run the tests that start Dask, or need a real object store (2 minutes)
	@$(BIN)/python -m pytest -q -m cluster -n 2

check: .venv/all ## Lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/mypy

format: .venv/all ## Format the code
	@$(BIN)/ruff check --fix -q .
	@$(BIN)/ruff format -q .

shots: .venv/all ## Make the screenshots in docs/ of two reports (after make demo; needs make browser)
	@$(BIN)/python scripts/shoot_reports.py

docs: .venv/all ## Write docs/reference.md and docs/cli.md from the code
	@$(BIN)/python scripts/write_docs.py

run: .venv/server ## Run CONFIG
	@$(BIN)/runner run $(CONFIG) $(ARGS)

plan: .venv/server ## Show which prompt of CONFIG goes where
	@$(BIN)/runner plan $(CONFIG) $(ARGS)

check-config: .venv/server ## Check CONFIG and ask its endpoints how they are
	@$(BIN)/runner check $(CONFIG) $(ARGS)

status: .venv/server ## Count what is saved, failed and missing in FOLDER
	@$(BIN)/runner status $(FOLDER) $(ARGS)

report: .venv/server ## Make a page of what happened in FOLDER (ARGS='--format text' says it)
	@$(BIN)/runner report $(FOLDER) $(ARGS)

monitor: .venv/server ## Watch the endpoints of CONFIG, and the run that goes on with them
	@$(BIN)/runner monitor $(CONFIG) $(ARGS)

start-servers: .venv/server ## Start N reference servers from PORT on (SERVER_COMMAND starts others)
	@N=$(N) PORT=$(PORT) PYTHON=$(CURDIR)/$(BIN)/python scripts/start_multi_port.sh

stop-servers: ## Stop them
	@scripts/stop_multi_port.sh

bench: .venv/bench ## Measure everything that docs/performance.md says, beside what people write themselves (15 minutes)
	@$(BIN)/python benchmarks/bench.py --docs $(ARGS)

scaling: .venv/bench ## Measure what docs/scaling.md says, and compute its model of 10,000 endpoints (20 minutes)
	@$(BIN)/python benchmarks/scaling.py --docs $(ARGS)

outages: .venv/all ## Measure what outages cost, beside a run without any (2 minutes)
	@$(BIN)/python benchmarks/outages.py --json benchmarks/out/outages.json

crash-test: .venv/all ## Kill runs N times (20) at random moments; check that nothing is lost, torn or replaced
	@$(BIN)/python scripts/crash_test.py --kills $(if $(filter command,$(origin N)),$(N),20) $(ARGS)

crash-jobs: .venv/all ## The same with servers that take jobs; check that none is generated twice
	@$(BIN)/python scripts/crash_jobs.py --kills $(if $(filter command,$(origin N)),$(N),30) $(ARGS)

nights: .venv/all ## Prove that cron and a systemd timer finish a list over three nights (as root; 3 minutes)
	@$(BIN)/python scripts/prove_nights.py $(ARGS)

test-servers: .venv/all ## Run against real server packages, installed into .servers (1.2 GB); ARGS=cog for one of them
	@$(BIN)/python scripts/test_servers.py $(ARGS)

assets: ## Build the third-party code of the HTML report anew (with npm, into runner/page/vendor)
	@npm --prefix scripts/assets ci --ignore-scripts --no-audit --no-fund --silent
	@npm --prefix scripts/assets run --silent build

browser: ## Install Debian's Chromium, which the tests of the HTML report open (as root)
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] || { echo "make browser needs root: sudo make browser"; exit 1; }; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; }
	@chromium --version 2>/dev/null

clean: stop-servers ## Stop the servers, and remove what make made (demo/ too), but no results of yours
	rm -rf .venv .servers build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis demo run benchmarks/out scripts/assets/node_modules

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "runner needs Python 3.10 or newer; set PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "No venv: on Debian and Ubuntu, apt install python3-venv"; exit 1; }

.venv/server: .venv/bin/python setup.cfg
	@echo "Installing into .venv …"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --use-pep517 -e '.[server,report]'
	@touch $@

.venv/all: .venv/bin/python setup.cfg
	@echo "Installing into .venv …"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --use-pep517 -e '.[all]'
	@touch $@ .venv/server

.venv/bench: .venv/all
	@$(BIN)/python -m pip install -q --disable-pip-version-check --use-pep517 -e '.[bench]'
	@touch $@
