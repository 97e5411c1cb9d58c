# make demo, make test: nothing but python3 (>= 3.11) with venv, and make, must be installed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_OUT ?= demo
# processes of pytest, a test file each
JOBS ?= logical
ENGINE ?= docker
IMAGE ?= hetseg
TORCH ?= cpu
CONTAINERS ?= containers
DATA ?= data
MAPS ?= synthseg_maps
T1W ?= demo/bids/sub-mni152/anat/sub-mni152_T1w.nii.gz
MODEL ?= label-flip
RESULTS ?= accuracy
AUDIT := .audit
WHEELS ?= wheels
GPU_PYTHON ?= $(PYTHON)
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' hetseg_bids/__init__.py)

.PHONY: demo test test-fast container-test faults docs mutants accuracy repeat ablation bench gpu-check wheels scaling sbom audit image lint type check install constraints clean

demo: $(STAMP)
	$(BIN)/hetseg demo $(DEMO_OUT)
	@echo "report: $(abspath $(DEMO_OUT))/derivatives/sub-mni152.html"

test: check
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 20 \
	  --cov --cov-report=

test-fast: $(STAMP)
	$(BIN)/pytest -m "not slow"

# needs root and Debian's buildah, debootstrap and bubblewrap; no container engine, no registry
container-test: $(STAMP)
	$(BIN)/pytest tests/project/test_containers.py --containers $(CONTAINERS)

# the long versions of what the tests do briefly: hours on two cores
faults: $(STAMP)
	HETSEG_KILLS=100 HETSEG_SOAK=500 HETSEG_TASKS=10000 HETSEG_PADDING=150 \
	  $(BIN)/pytest tests/faults tests/runs/test_workers.py \
	  -k "killed or soak or thousands or padded or memory"

docs: $(STAMP)
	$(BIN)/python docs/make_usage.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# do the unit tests notice when a line of the core is changed? ten minutes
mutants: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check 'mutmut>=3.8,<4'
	OMP_NUM_THREADS=1 $(BIN)/mutmut run
	$(BIN)/mutmut results

# every figure of the model card: DATA holds sub-X_T1w.nii.gz and sub-X_dseg.nii.gz, MAPS the label maps
# that synthetic truth is drawn from; twenty minutes on two cores with two scans
accuracy: $(STAMP)
	$(BIN)/python benchmarks/accuracy.py $(DATA) $(RESULTS)/accuracy --model $(MODEL)
	$(BIN)/python benchmarks/calibration.py $(DATA) $(RESULTS)/calibration --model $(MODEL)
	$(BIN)/python benchmarks/robustness.py $(DATA) $(RESULTS)/robustness --model $(MODEL)
	$(BIN)/python benchmarks/intervals.py $(MAPS) $(RESULTS)/intervals --model $(MODEL)
	$(BIN)/python benchmarks/ripples.py $(RESULTS)/ripples $(DATA) --seeds 2

# do volumes repeat from scan to scan, as hetseg says? DATA: people scanned twice (sub-X, sub-X+20); COPIES: T1w
# images that are also imitated by copies; a minute a scan on one core
repeat: $(STAMP)
	$(BIN)/python benchmarks/repeat.py $(DATA) $(RESULTS)/repeat --model $(MODEL) --copies $(COPIES)

# do synthetic scans look like real ones, what each part of the synthesis is worth, and which network
# its time: two hours on one core
ablation: $(STAMP)
	$(BIN)/python benchmarks/realism.py $(MAPS) $(RESULTS)/realism $(DATA)
	$(BIN)/python benchmarks/ablation.py $(MAPS) $(DATA) $(RESULTS)/ablation --init $(MODEL)
	$(BIN)/python benchmarks/front.py $(MAPS) $(DATA) $(RESULTS)/front

# where the time of a scan goes; for an idle machine
bench: $(STAMP)
	$(BIN)/python benchmarks/speed.py $(T1W) $(RESULTS)/speed --model $(MODEL)

# does a GPU give the CPU's results, and how fast is it? ten minutes, for an idle machine. The second needs only the
# first's folder WHEELS, no network, and a GPU_PYTHON that has PyTorch with CUDA; without the folder .venv is used
wheels: $(STAMP)
	mkdir -p $(WHEELS)
	$(BIN)/python benchmarks/beside_torch.py > $(WHEELS)/requirements.txt
	$(BIN)/pip wheel --no-deps -w $(WHEELS) -r $(WHEELS)/requirements.txt

ifneq ($(wildcard $(WHEELS)/*.whl),)
gpu-check:
	$(GPU_PYTHON) -m pip install --quiet --no-index --no-deps --upgrade --target $(WHEELS)/site $(WHEELS)/*.whl
	PYTHONPATH=$(CURDIR):$(abspath $(WHEELS))/site $(GPU_PYTHON) benchmarks/gpu_check.py $(T1W) $(RESULTS)/gpu --model $(MODEL)
else
gpu-check: $(STAMP)
	$(BIN)/python benchmarks/gpu_check.py $(T1W) $(RESULTS)/gpu --model $(MODEL)
endif

# how a run grows with subjects and with voxels; hours on two cores, for an idle machine
scaling: $(STAMP)
	$(BIN)/python benchmarks/scaling.py $(T1W) $(RESULTS)/scaling --model $(MODEL)

# what is in the environment, as CycloneDX; known weaknesses need PyPI's advisories
sbom: $(STAMP) $(AUDIT)/.installed
	$(AUDIT)/bin/cyclonedx-py environment $(BIN)/python --of JSON -o sbom.json

audit: $(AUDIT)/.installed
	$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

$(AUDIT)/.installed:
	@$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip install --quiet --disable-pip-version-check 'cyclonedx-bom>=7,<8' 'pip-audit>=2.9,<3'
	@touch $@

image:
	$(ENGINE) build -t $(IMAGE) -t $(IMAGE):$(VERSION) --build-arg TORCH=$(TORCH) \
	  --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) .

check: lint type

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(STAMP)
	$(BIN)/mypy

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "hetseg needs Python 3.11 or newer; on Debian or Ubuntu: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python's venv module is missing; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "could not make a virtual environment; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

constraints: $(STAMP)
	{ head -n 1 constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/+cpu//'; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) $(AUDIT) $(DEMO_OUT) $(CONTAINERS) sbom.json mutants site .mypy_cache .pytest_cache .ruff_cache
