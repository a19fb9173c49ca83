# make demo and make test do all of their own set-up: nothing is asked but Python >= 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
PY = $(VENV)/bin/python
TORCH ?= torch==2.13.0

.PHONY: demo test parity lint clean

demo: $(VENV)/.ready
	$(PY) demo.py

test: $(VENV)/.ready
	$(PY) -m pytest

parity: $(VENV)/.ready
	$(PY) -m pip install -q "$(TORCH)"
	$(PY) -m pytest -m parity

lint: $(VENV)/.ready
	$(PY) -m pip install -q "ruff>=0.12" "pyright>=1.1.400"
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/pyright --pythonpath $(PY)

$(VENV)/.ready: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q -r requirements.txt
	touch $@

clean:
	rm -rf $(VENV) runs
