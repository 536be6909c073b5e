# Needs Python (3.11 or newer), pip and make. `make` lists the targets.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= auto
CASES ?= 2000
SEED ?= 1
SECONDS ?= 120

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
# checks the tensor shapes written in annotations; torch.compile cannot look through it
SHAPES := --jaxtyping-packages=diptych,beartype.beartype
# the tests whose subject are tensors; elsewhere the checks double the time of small loops and find nothing new
SHAPED := $(addprefix tests/,contract data models nn parity tasks types)
REST := $(filter-out $(SHAPED),$(wildcard tests/*))

# tests that take seconds: without those of the targets journey and soak
FAST := "not slow and not compile and not journey and not soak and not browser"

# of `make lxmert`: the pre-trained model, and the vocabulary that it shares with the tasks
LXRT := runs/lxmert/pretrained
WORDS := vocabulary=runs/lxmert/mix/vocabulary.txt
# of `make mmbert`: captions in two languages, and what is learned on them
MM := runs/mmbert

.DEFAULT_GOAL := help
.PHONY: help install demo vilio lxmert mmbert check test quick fuzz parity certificate journey soak bench docs \
	site notebooks api licenses package matrix lowest size clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: PYTHON=$(PYTHON) VENV=$(VENV) WORKERS=$(WORKERS) (test processes) CASES=$(CASES) SEED=$(SEED) (fuzz) SECONDS=$(SECONDS) (soak)"

install: $(STAMP) ## make or update the virtual environment, with the tested versions
	@echo "$(VENV) is current."

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "diptych needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo missing)."; \
		echo "Say which one to use: make PYTHON=/path/to/python3.11"; exit 1; }
	@if $(BIN)/python -m pip --version >/dev/null 2>&1; then echo "Updating $(VENV)."; \
		else echo "Making a virtual environment in $(VENV)."; $(PYTHON) -m venv $(VENV); fi
	@echo "Installing diptych and what it needs (the first time, this downloads PyTorch)."
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: install ## the whole journey on a miniature data set, offline, in a few minutes
	$(BIN)/diptych demo

vilio: install ## all seven families of Vilio, tiny, from TSV, LMDB and pictures to FIN files (under runs/)
	@test -e runs/memes/world.json || $(BIN)/diptych world runs/memes --size 2000 --seed 1
	@test -e runs/memes.lmdb || $(BIN)/diptych export runs/memes/features runs/memes.lmdb --format mmf-lmdb
	@test -e runs/memes/stores/tsv || $(BIN)/diptych import runs/memes/features.tsv runs/memes/stores/tsv
	@test -e runs/memes/stores/lmdb || $(BIN)/diptych import runs/memes.lmdb runs/memes/stores/lmdb
	$(BIN)/diptych study run vilio_imported --root runs/memes --jobs 2

lxmert: install ## LXMERT's guide, tiny: pre-training, then VQA, GQA and NLVR2 to official files (under runs/)
	@test -e runs/lxmert/mix || $(BIN)/diptych world runs/lxmert/mix --data lxmert --size 1000 --seed 1
	@test -e runs/lxmert/vqa || $(BIN)/diptych world runs/lxmert/vqa --data vqa --size 1000 --seed 1
	@test -e runs/lxmert/gqa || $(BIN)/diptych world runs/lxmert/gqa --data gqa --size 1000 --seed 1
	@test -e runs/lxmert/nlvr2 || $(BIN)/diptych world runs/lxmert/nlvr2 --data nlvr2 --size 1000 --seed 1
	@test -e $(LXRT)/bundle || \
		$(BIN)/diptych train experiment=pretrain/lxmert_tiny root=runs/lxmert/mix $(WORDS) out=$(LXRT) \
		trainer.max_epochs=10 task.weights.matching=8
	@test -e runs/lxmert/tuned/vqa/bundle || \
		$(BIN)/diptych train experiment=vqa/lxmert_tiny root=runs/lxmert/vqa $(WORDS) \
		weights.model=$(LXRT) data.train.split=train+nominival data.validate.split=minival out=runs/lxmert/tuned/vqa
	@test -e runs/lxmert/tuned/gqa/bundle || \
		$(BIN)/diptych train experiment=gqa/lxmert_tiny root=runs/lxmert/gqa $(WORDS) \
		weights.model=$(LXRT) out=runs/lxmert/tuned/gqa
	@test -e runs/lxmert/tuned/nlvr2/bundle || \
		$(BIN)/diptych train experiment=nlvr2/lxmert_tiny root=runs/lxmert/nlvr2 $(WORDS) \
		weights.model=$(LXRT) out=runs/lxmert/tuned/nlvr2
	@test -e runs/lxmert/tuned/vqa/predictions/test_predict.json || \
		$(BIN)/diptych predict runs/lxmert/tuned/vqa --splits minival,test
	@test -e runs/lxmert/tuned/gqa/predictions/submission_predict.json || \
		$(BIN)/diptych predict runs/lxmert/tuned/gqa --splits testdev,submission
	@test -e runs/lxmert/tuned/nlvr2/predictions/test2.csv || \
		$(BIN)/diptych predict runs/lxmert/tuned/nlvr2 --splits dev,test1,test2
	$(BIN)/diptych evaluate runs/lxmert/tuned/vqa/predictions/minival_predict.json \
		--data vqa --root runs/lxmert/vqa --split minival
	$(BIN)/diptych evaluate runs/lxmert/tuned/gqa/predictions/testdev_predict.json \
		--data gqa --root runs/lxmert/gqa --split testdev
	$(BIN)/diptych evaluate runs/lxmert/tuned/nlvr2/predictions/dev.csv \
		--data nlvr2 --root runs/lxmert/nlvr2 --split dev

mmbert: install ## MM-BERT's and VL-BERT's guide, tiny: pre-training on captions, corpora and two languages (under runs/)
	@test -e $(MM)/captions || $(BIN)/diptych world $(MM)/captions --data conceptual_captions --size 240 --seed 1
	@test -e $(MM)/captions/en_corpus || $(BIN)/diptych world $(MM)/captions/en_corpus --data corpus --size 120 --seed 1
	@test -e $(MM)/multi30k || $(BIN)/diptych world $(MM)/multi30k --data multi30k --size 480 --seed 1
	@test -e $(MM)/multi30k/en_corpus || $(BIN)/diptych world $(MM)/multi30k/en_corpus --data corpus --size 120 --seed 2
	@test -e $(MM)/vlbert/bundle || \
		$(BIN)/diptych train experiment=pretrain/vlbert_tiny root=$(MM)/captions out=$(MM)/vlbert
	@test -e $(MM)/a/bundle || \
		$(BIN)/diptych train experiment=pretrain/mmbert_task_a_tiny root=$(MM)/multi30k out=$(MM)/a trainer.max_epochs=1
	$(BIN)/diptych study run mmbert_chain_tiny root=$(MM)/multi30k out=$(MM)/chain
	@test -e $(MM)/retrieval/bundle || \
		$(BIN)/diptych train experiment=multi30k/retrieval_tiny root=$(MM)/multi30k weights.model=$$(echo $(MM)/chain/bcb-*) out=$(MM)/retrieval \
		processor.text.lowercase=false
	$(BIN)/diptych retrieve $(MM)/retrieval --split test_2016_flickr
	@test -e $(MM)/translation/bundle || \
		$(BIN)/diptych train experiment=multi30k/translation_encoder_decoder_tiny root=$(MM)/multi30k out=$(MM)/translation \
		trainer.max_epochs=60 trainer.val_check_interval=80
	$(BIN)/diptych translate $(MM)/translation --split test_2016_flickr --beam 5
	@test -e $(MM)/worlds/mlt || $(BIN)/diptych world $(MM)/worlds/mlt --data mlt --size 1000 --seed 1
	@test -e $(MM)/mlt/bundle || \
		$(BIN)/diptych train experiment=mlt/en_de_tiny root=$(MM)/worlds/mlt out=$(MM)/mlt
	@test -e $(MM)/mlt_blind/bundle || \
		$(BIN)/diptych train experiment=mlt/en_de_tiny root=$(MM)/worlds/mlt out=$(MM)/mlt_blind image=false
	$(BIN)/diptych predict $(MM)/mlt --splits test_2016_flickr
	$(BIN)/diptych predict $(MM)/mlt_blind --splits test_2016_flickr
	$(BIN)/diptych evaluate $(MM)/mlt_blind/predictions/test_2016_flickr.npz $(MM)/mlt/predictions/test_2016_flickr.npz \
		--data mlt --root $(MM)/worlds/mlt --split test_2016_flickr --cases 5
	@test -e $(MM)/worlds/vcr || $(BIN)/diptych world $(MM)/worlds/vcr --data vcr --size 1200 --seed 1
	@test -e $(MM)/q2a/bundle || \
		$(BIN)/diptych train experiment=vcr/q2a_tiny root=$(MM)/worlds/vcr out=$(MM)/q2a
	@test -e $(MM)/qa2r/bundle || \
		$(BIN)/diptych train experiment=vcr/qa2r_tiny root=$(MM)/worlds/vcr out=$(MM)/qa2r
	$(BIN)/diptych predict $(MM)/q2a $(MM)/qa2r --splits val,test
	@test -e $(MM)/worlds/refcoco || $(BIN)/diptych world $(MM)/worlds/refcoco --data refcoco_plus --size 1200 --seed 1
	@test -e $(MM)/refcoco/bundle || \
		$(BIN)/diptych train experiment=refcoco/plus_tiny root=$(MM)/worlds/refcoco out=$(MM)/refcoco trainer.max_epochs=10
	$(BIN)/diptych predict $(MM)/refcoco --splits val,testA,testB
	@for split in testA testB; do $(BIN)/diptych evaluate $(MM)/refcoco/predictions/$$split.json \
		--data refcoco_plus --root $(MM)/worlds/refcoco --split $$split || exit 1; done

check: install ## lint, formatting, types, import contracts, spelling
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

test: install ## all tests but those of `make journey` and `make soak`
	$(PYTEST) -n $(WORKERS) --dist loadfile -m $(FAST) $(addprefix --ignore=,$(SHAPED))
	$(PYTEST) -n $(WORKERS) --dist loadfile -m $(FAST) $(SHAPES) tests $(addprefix --ignore=,$(filter-out %conftest.py,$(REST)))

quick: install ## the tests of single functions, for daily work: no command line, training, journeys, snippets
	$(PYTEST) -n $(WORKERS) --dist loadfile -q -m "not slow" tests/types tests/nn tests/tasks tests/text tests/metrics \
		tests/data tests/test_*.py \
		tests/architecture/test_size.py tests/architecture/test_rooms.py \
		--ignore tests/tasks/test_pretrain.py --ignore tests/test_nodes.py --ignore tests/test_pickles.py \
		--ignore tests/test_torch_file.py --ignore tests/text/test_fasttext.py

fuzz: install ## hostile input for every reader, kills, full disks (CASES=2000 SEED=1)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --cases $(CASES) --seed $(SEED)

parity: install ## the originals' golden files (DIPTYCH_GOLDENS: the folder of further ones)
	$(PYTEST) $(SHAPES) tests/parity

certificate: install ## measure the goldens of DIPTYCH_GOLDENS anew for the model cards of converted files
	$(PYTEST) $(SHAPES) tests/parity --certificate --ignore tests/parity/test_certificate.py

journey: install ## whole ways of a person, every snippet, kills, torch.compile, Ray; for minutes
	$(PYTEST) -n $(WORKERS) --dist loadfile -m "journey or slow"
	$(PYTEST) -n $(WORKERS) -m compile

soak: install ## the service under load on this machine, bounded (SECONDS=120 per test; 600 for its memory)
	DIPTYCH_SOAK=$(SECONDS) $(PYTEST) -m "soak or browser" -s tests/serve

bench: install ## measured against plain code and other libraries
	$(BIN)/python -m bench

docs: install ## run the snippets of the documentation and follow its links
	$(PYTEST) tests/architecture/test_docs.py

site: install ## the documentation as a website that needs no network (under build/site)
	$(BIN)/python scripts/site.py

notebooks: install ## the notebooks of docs/notebooks as ipynb files (under build/notebooks)
	$(BIN)/python scripts/notebooks.py

api: ## write docs/api.txt, the public interface that a test compares with the code
	@$(PYTHON) scripts/api.py

licenses: install ## write docs/licenses.md
	$(BIN)/python scripts/licenses.py

package: install ## sdist, wheel and bill of materials in dist/; built twice, with equal bytes
	$(BIN)/python scripts/package.py
	$(BIN)/python scripts/licenses.py --sbom dist/diptych.cdx.json

matrix: package ## the wheel in bare environments of every Python from 3.11 to 3.14 that is here
	$(PYTHON) scripts/matrix.py

lowest: package ## the same with the lowest versions of all libraries
	$(PYTHON) scripts/matrix.py --lowest

size: ## lines of code per folder: now, before the change, budget
	@$(PYTHON) scripts/size.py

clean: ## remove caches; the virtual environment and your runs stay
	find . -name __pycache__ -type d -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
