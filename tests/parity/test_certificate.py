"""What model cards promise of a family was measured with these very goldens."""

import hashlib
import json
from pathlib import Path

from safetensors import safe_open

from diptych.convert import FAMILIES, certificate

SELECTION = Path(__file__).parents[1] / "golden"
EXACT = {"lxmert-answer-transfer"}  # rows are copied: compared without any tolerance

# Of heads that no converter writes; tests/parity/test_clip_heads.py compares them.
HEADS = ("clip-hateclipper", "clip-memeclip", "clip-rgcl")


def compared_outputs(path):
    with safe_open(path, "pt") as tensors:
        names = list(tensors.keys())
    return any(name.startswith("weights/") for name in names)


def test_the_certificate_covers_the_selection_and_knows_its_files():
    promised = {name: entry for one in FAMILIES for name, entry in certificate(one.name).items()}
    for path in SELECTION.glob("*.safetensors"):
        if path.stem in EXACT or path.stem.startswith(HEADS) or not compared_outputs(path):
            continue
        entry = promised.get(path.stem)
        assert entry is not None, f"{path.stem} is not in the certificate; run make certificate"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert entry["sha256"] == digest, f"{path.stem} has changed since; run make certificate"


def test_the_certificate_promises_what_parity_means():
    for family in FAMILIES:
        for name, entry in certificate(family.name).items():
            assert 0 <= entry["worst"] <= 1e-4, name
            assert entry["compared"] > 0, name


def test_every_published_family_has_a_proof():
    unproven = {family.name for family in FAMILIES if not certificate(family.name)}
    # BERT is compared with transformers, not with goldens; SigLIP's goldens are listed with CLIP's.
    assert unproven == {"bert", "siglip"}, json.dumps(sorted(unproven))
