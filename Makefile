# Each target sets itself up: a virtual environment in .venv with the exact versions of requirements.lock.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
JOBS ?= 2
VENV := .venv
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin

.PHONY: demo test docs lint clean

demo: $(STAMP)  ## train and judge an adapter on the bundled teacher, and write a report
	$(BIN)/guidefold demo

test: $(STAMP)  ## run the tests; one thread in each of the JOBS processes is fastest on a small machine
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

docs: $(STAMP)  ## build the site in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

lint: $(STAMP)  ## check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

clean:  ## remove the environment and what tools and the demo left behind
	rm -rf $(VENV) build dist site demo-run .pytest_cache .ruff_cache src/*.egg-info
	find src tests tools teachers benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(STAMP): requirements.lock pyproject.toml tools/setup.py
	@$(PYTHON) tools/setup.py $(VENV)
