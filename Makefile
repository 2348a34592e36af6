# make report, make test and make lab create .venv and install what is missing.
# CPU wheels of torch by default; for CUDA: make install TORCH_INDEX=https://download.pytorch.org/whl/cu130
# An installed .venv is left as it is: to change the index, make clean first.
PYTHON ?= python3
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := $(shell grep '^torch==' constraints.txt)
BIN := .venv/bin
REPORT_ARGUMENTS ?=

.PHONY: install report test unit wheel slow lint lab docs clean

install: .venv/installed

# Where the wheel index cannot be reached, pip's configured index is asked for the same pinned version.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --retries 2 --timeout 10 --index-url $(TORCH_INDEX) "$(TORCH)" || { \
	  echo "$(TORCH_INDEX) gave no $(TORCH): falling back to pip's own index; on Linux its build brings CUDA, gigabytes"; \
	  $(BIN)/pip install -q "$(TORCH)"; }
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	touch $@

# Two at a time, unchanged ones left: make report REPORT_ARGUMENTS=--fresh makes all again, --overwrite replaces reports
# of an older version, whose notebooks had other defaults.
report: install
	$(BIN)/varlab report --batch notebooks/reports.yaml $(REPORT_ARGUMENTS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The linters beside the tests: mypy, which takes minutes where it has no cache, leaves no core without work.
test: install
	$(MAKE) --no-print-directory -j 2 lint unit

# Two workers, one torch thread each. Each begins with one half of the tests in order, so most files' fixtures are made once.
# What they and the processes they start compile is kept, also where the environment says not to.
unit: install
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --durations 10

# The wheel, built and used alone in a fresh environment.
wheel: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow tests/test_wheel.py

slow: install
	$(BIN)/pytest -m slow

# Jupyter refuses to run as root, as in most containers, unless it is told that this is meant.
lab: install
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/start/start.ipynb

docs: install
	$(BIN)/pip install -q -c constraints.txt -e ".[docs]"
	$(BIN)/python -m typer varlab.cli utils docs --name varlab --output docs/cli.md
	$(BIN)/mkdocs build

clean:
	rm -rf .venv
