# Needs Python >= 3.10 and make, nothing else. PYTHON picks the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-lowest lint benchmark clean

demo: $(VENV)/.installed
	$(BIN)/rfadapt demo

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .

# The oldest versions that pyproject.toml allows, in an environment of their own.
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet -c constraints-lowest.txt '.[test]'
	cd tests && ../.venv-lowest/bin/python -m pytest

# Not part of the tests: hours in all, and the first three need data that are not part of the project (see benchmarks/README.md).
benchmark: $(VENV)/.installed-benchmarks
	$(BIN)/python benchmarks/w2.py --budgets 30 120 300
	$(BIN)/python benchmarks/domain_adaptation.py
	$(BIN)/python benchmarks/images.py mnist-m --options '{"n_reflow": 1, "distill": true}' --guidance 1 1.5 2 3
	$(BIN)/python benchmarks/images.py usps
	$(BIN)/python benchmarks/clumps.py $(VENV)/clumps
	$(BIN)/python benchmarks/w2.py --data $(VENV)/clumps --dims 8 32 128 256 --budgets 60 --transports flow pot-linear \
		ott-enot --results benchmarks/clumps_results.md
	$(BIN)/python benchmarks/shifts.py
	$(BIN)/python benchmarks/groups.py
	$(BIN)/python benchmarks/small_samples.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/few_steps.py
	$(BIN)/python benchmarks/roofline.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.installed: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet -e .
	touch $@

$(VENV)/.installed-test: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet -e '.[test,skada]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-benchmarks: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet -e '.[benchmarks]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .venv-lowest build *.egg-info
