# Every target first creates the environment .venv in this folder, if it is missing or older than
# pyproject.toml or constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
READY_DOCS := .venv/.ready-docs

.PHONY: train test test-slow docs
.DEFAULT_GOAL := test

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rmaat needs Python 3.11 or newer, not " + sys.version.split()[0] + "; run make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,documents,search,serve]'
	touch $@

$(READY_DOCS): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

train: $(READY)
	$(BIN)/rmaat compare recall --output runs/recall --models rmaat_long rmaat --seeds 1 --segments 16 64 256 1024

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow and not gpu' -n 2 --dist loadfile

test-slow: $(READY)
	$(BIN)/python -m pytest -m 'slow and not gpu'

# The pages are in build/docs; NO_MKDOCS_2_WARNING silences an advertisement.
docs: $(READY_DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
