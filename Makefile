# make book   environment, mini study, notebooks and book from nothing
# make pdf    the same as one PDF, _build/vpcore.pdf, printed by the Chromium of the system; notebooks are left out
# make test   environment and all tests that take seconds, four minutes together
# make test-all   and those that take minutes, an hour together: the book of every profile, the wheel
# make links   are the links of the book to other sites still there?
# make coverage   the tests of make test, with the lines that none of them runs
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# a worker that dies ends the run: with a new one in its place, xdist waits for the tests of the dead one
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --max-worker-restart 0 \
	--dist loadfile --no-loadscope-reorder

.PHONY: book links test test-slow test-all coverage check clean

book: $(READY)
	$(BIN)/vpcore run --profile mini
	$(BIN)/jupyter-book build book/ -W -n --keep-going
	@echo "the book: _build/html/index.html"

links: book
	$(BIN)/jupyter-book build book/ --builder linkcheck

pdf: $(READY)
	$(BIN)/vpcore run --profile mini
	$(BIN)/jupyter-book build book/ --builder singlehtml -W -n --keep-going
	chromium --headless --no-sandbox --no-pdf-header-footer --generate-pdf-document-outline --virtual-time-budget=30000 \
		--print-to-pdf=_build/vpcore.pdf "file://$(CURDIR)/_build/singlehtml/intro.html"

test: check
	$(PYTEST) -m "not slow"

test-slow: $(READY)
	$(PYTEST) -m slow

test-all: test test-slow

coverage: check
	$(PYTEST) -m "not slow" --cov --cov-report=term-missing:skip-covered

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy --no-error-summary
	$(BIN)/nbstripout --keep-id --verify notebooks/*.ipynb

# written last, so that an interrupted install is taken up again
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[book,imagenet,fetch,wandb,cluster,test]'
	touch $@

clean:
	rm -rf _build book/generated results/mini results/mini-toy results/cache
