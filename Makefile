# Two commands: `make demo` runs the whole system on a simulated plant, `make test` proves it.
VENV  := .venv
PY    := $(VENV)/bin/python
READY := $(VENV)/.ready
PIP   := $(PY) -m pip install -qq --disable-pip-version-check --constraint constraints.txt

.PHONY: setup demo test lint types sbom audit picture clean
.DEFAULT_GOAL := demo

setup: $(READY)

$(READY): pyproject.toml constraints.txt deploy/debian-packages
	@sh deploy/debian-packages
	@test -x $(PY) || python3 -m venv $(VENV)
	@echo "installing torch into $(VENV) (half a minute) ..."
	@$(PIP) torch
	@echo "installing everything else (two minutes) ..."
	@$(PIP) --editable '.[dev]'
	@touch $@

demo: setup
	$(VENV)/bin/fusion demo

# One file of tests at a time on each core; one thread each, so that they do not fight for the cores.
test: setup
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 8 --dist loadfile

lint: setup
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports

types: setup
	$(VENV)/bin/mypy

# What is installed, tools of development included, as CycloneDX.
SBOM := var/sbom.json
sbom: setup
	@mkdir -p $(dir $(SBOM))
	$(PY) -m cyclonedx_py environment --pyproject pyproject.toml --output-reproducible --output-file $(SBOM) $(PY)

# Whether vulnerabilities of it are known. AUDIT takes options of pip-audit, such as --ignore-vuln ID, and --if-reachable.
AUDIT :=
audit: setup
	$(PY) .ci/audit.py $(AUDIT)

# Of a page that runs: `make demo`, wait until it is NORMAL, `fusion fault belt_slip`, and a minute later this.
picture: setup
	$(PY) -m tests.page_picture http://127.0.0.1:8080 docs/page.png --whole

clean:
	rm -rf $(VENV) var .mypy_cache .ruff_cache .pytest_cache .hypothesis
