# `make demo` and `make test` need nothing but Python >= 3.11 and make: they install into .venv.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo dist endurance test test-page test-scale lint format install clean

demo: .venv/installed-train
	$(BIN)/python -m benchmarks.demo

test: .venv/installed-dev
	$(BIN)/pytest -n 3 --dist worksteal

# The page in a real browser, which Debian and its kin have as a package.
test-page: .venv/installed-dev
	command -v chromium >/dev/null || apt-get install -y --no-install-recommends chromium
	$(BIN)/pytest tests/service/test_page.py

# On a cluster and databases of this machine: what they need is not in `dev`.
test-scale: .venv/installed-dev
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt -e ".[dev,ray,scale]"
	$(BIN)/pytest -m 'not endurance' tests/indexer/build/test_on_ray.py tests/test_scaling_docs.py tests/retrieval/hold

# The long ones: every fault that can be injected at random, injected many times; minutes.
endurance: .venv/installed-dev
	$(BIN)/pytest -n 2 -m endurance

# The wheel, in empty environments with the pinned and the lowest versions, in an empty folder.
dist: .venv/installed-dev
	$(BIN)/python tests/wheel.py

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: .venv/installed-train

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv

.venv/installed-train: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt -e ".[train]"
	touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt -e ".[dev]"
	touch $@ .venv/installed-train

clean:
	rm -rf .venv demo build *.egg-info
