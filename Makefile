# demo and test set up .venv first: on a fresh machine nothing else is needed but Python 3.10 to 3.13.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
export OMP_NUM_THREADS := 1
export YOLO_OFFLINE := 1
export YOLO_AUTOINSTALL := false
export YOLO_CONFIG_DIR := $(CURDIR)/$(VENV)/ultralytics

# What tells whether a Python works: all of the core, and a training in each toolbox beside the stock one.
CORE := tests/core tests/docs $(addprefix tests/both/test_,order.py hosts.py sufficiency.py \
	adapters.py::test_full_is_the_stock_training)

.PHONY: demo test quick check lint setup lock docs
setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q -c constraints.txt -e '.[det,seg,hf,dev]'
	mkdir -p $(VENV)/ultralytics
	$(PY) -c "import yapf" # writes its cache, which processes that start together would read half written
	touch $@

demo: setup
	$(PY) tools/compare.py --jobs 2

test: setup
	$(PY) -m pytest -q -n 2 --dist worksteal

quick: setup
	$(PY) -m pytest -q -n 2 --dist worksteal -m "not slow"

check: setup
	$(PY) -m pytest -q -n 2 --dist worksteal $(CORE)

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# The documents as a site in build/site; a broken link fails.
docs: setup
	$(PY) -m pip install -q -c constraints.txt -e '.[docs]'
	$(PY) -m mkdocs build --strict

# Versions for every Python and system at once; pins that still fit stay. torch names its own CUDA libraries.
lock:
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.10 \
		--no-annotate --no-header -q -o constraints.txt
	sed -i -E -e '/^(cuda|nvidia-(c|nc|nv)|triton)/d' \
		-e '1i # Versions that were tested together; make installs from them, `make lock` writes them (with uv).' constraints.txt
