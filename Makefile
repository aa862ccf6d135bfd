# Both commands set up .venv first: on a fresh machine nothing else is needed but Python 3.10 to 3.13.
PYTHON ?= python3
PY := .venv/bin/python
export OMP_NUM_THREADS := 1
export YOLO_OFFLINE := 1
export YOLO_AUTOINSTALL := false
export YOLO_CONFIG_DIR := $(CURDIR)/.venv/ultralytics

.PHONY: demo test lint setup
setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install -q -c constraints.txt -e '.[det,seg,dev]'
	mkdir -p .venv/ultralytics
	touch $@

demo: setup
	$(PY) tools/compare.py --jobs 2

test: setup
	$(PY) -m pytest -q -n 2 --dist worksteal

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
