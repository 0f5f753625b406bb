# Short targets for everything; `make test` and `make demo` need nothing but Python >= 3.12 or uv.
# Each target installs the extras it needs into $(VENV) once, and again when the pins change.

VENV ?= .venv
PYTHON := $(VENV)/bin/python
FIGURES ?= demo_figures
PYTEST_ARGS ?= -n auto

.PHONY: demo test slow bench docs lint clean
.NOTPARALLEL:

demo: $(VENV)/.has-torch
	$(PYTHON) case_studies coin digits_rbm --short --figures $(FIGURES)

test: $(VENV)/.has-torch $(VENV)/.has-test
	$(PYTHON) -m pytest $(PYTEST_ARGS)

slow: $(VENV)/.has-torch $(VENV)/.has-test
	$(PYTHON) -m pytest -m slow $(PYTEST_ARGS)

bench: $(VENV)/.has-torch $(VENV)/.has-bench
	$(PYTHON) tests/benchmarks

docs: $(VENV)/.has-torch $(VENV)/.has-docs
	$(PYTHON) -m sphinx -W --keep-going -b html docs docs/_build/html

lint: $(VENV)/.has-torch $(VENV)/.has-test
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	$(VENV)/bin/cffconvert --validate

clean:
	rm -rf build dist docs/_build docs/api/generated docs/auto_case_studies $(FIGURES)

# One stamp for each extra of pyproject.toml.
$(VENV)/.has-%: pyproject.toml constraints.txt | $(PYTHON)
	@echo "Installing pm-neural[$*] into $(VENV); the first time takes a few minutes ..."
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --editable ".[$*]"
	@touch $@

$(PYTHON):
	.ci/make-venv $(VENV)
