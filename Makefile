# Needs Python 3.11 or newer, make, and a network with PyPI. Everything is installed into .venv; nothing else is touched.
# `make demo VENV=/path/to/venv` uses, and fills, an environment of your own. `make test JOBS=8` takes eight processes.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test slow lint reports zoo-cuda clean

help:
	@echo "make demo     install, attack two small networks, say where the page is (a few minutes the first time)"
	@echo "make test     install, run the tests"
	@echo "make slow     run the tests that take long"
	@echo "make lint     ruff and mypy"
	@echo "make reports  make the example in reports/ again (its picture needs Chromium)"
	@echo "make zoo-cuda OUT=folder  train and measure resnet20 and resnet18 on one GPU (nine minutes)"
	@echo "make clean    remove .venv, build leftovers and caches"

demo: $(VENV)/.installed
	$(BIN)/robustlab attack --output reports/demo --overwrite
	@echo
	@echo "The page: file://$(CURDIR)/reports/demo/report.html"

# one thread in each of several processes: two threads on images of 32 x 32 gain little
test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal --durations=10

slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow --durations=0

lint: $(VENV)/.installed-test $(VENV)/.installed-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

reports: $(VENV)/.installed-test
	$(BIN)/robustlab attack --limit 32 --output reports/example --overwrite
	$(BIN)/python reports/picture.py reports/example/report.html reports/example/page.png

zoo-cuda: $(VENV)/.installed
	@test -n "$(OUT)" || { echo "Say where cards and checkpoints go: make zoo-cuda OUT=folder" >&2; exit 2; }
	$(BIN)/python benchmarks/zoo_cuda.py "$(OUT)"

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

# The stamps are renewed when what is to be installed changes; the code itself is installed in place.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "robustlab needs Python 3.11 or newer, and $(PYTHON) is older: make PYTHON=python3.12 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade "pip>=25.1"  # the first that knows dependency groups
	touch $@

$(VENV)/.installed: pyproject.toml setup.py $(VENV)/.python
	@echo "Installing into $(VENV); PyTorch is large, the first time takes minutes."
	$(PIP) --editable .
	touch $@

# torchattacks pins an old requests, which it does not need
$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --group test
	$(PIP) --no-deps "torchattacks>=3.5"
	touch $@

$(VENV)/.installed-%: $(VENV)/.installed
	$(PIP) --group $*
	touch $@
