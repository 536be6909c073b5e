"""Score one meme: by a trained model, or by all members of a study and their blend.

Regions come from the stores that the models were trained with, or from those named here; the name of the
picture's file is the key. With the weights of their detectors they are found in the picture itself, by the
rules of those stores.

try:
  diptych score memes/img/00001.png --text "what a day" --model runs/uniter_tiny/seed1
  diptych score memes/img/00001.png --text "what a day" --model runs/study/vilio_tiny --json
  diptych score new.png --text "what a day" --model runs/uniter --weights vgattr=ATTR.pkl
"""

import argparse
import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from diptych.cli.options import add_device, add_json
from diptych.cli.output import table
from diptych.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, help="a picture")
    parser.add_argument("--text", required=True, help="its text")
    parser.add_argument("--model", type=Path, required=True, help="a run, a bundle, or a study's folder")
    parser.add_argument(
        "--features",
        action="append",
        default=[],
        help="another store (or boxes.jsonl) than that of training; NAME=FOLDER of those of a study",
    )
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        help="find regions in the picture: DETECTOR=FILE (or random) of each detector behind the stores",
    )
    add_device(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.files import require_file
    from diptych.predict import find_device
    from diptych.study import found_in, score_meme

    require_file(arguments.image, "a picture file")
    if arguments.weights and arguments.features:
        raise ConfigError("regions come from --features or, by --weights, from the picture; say one of them.")
    given = {name or "features": Path(place) for name, _, place in _pairs(arguments.features)}
    with ExitStack() as stack:
        if arguments.weights:
            files = {
                name: None if file == "random" else Path(file) for name, _, file in _pairs(arguments.weights)
            }
            device = str(find_device(arguments.device))
            given = stack.enter_context(found_in(arguments.image, arguments.model, files, device=device))
        verdict = score_meme(
            arguments.model,
            image=arguments.image,
            text=arguments.text,
            features=given,
            device=arguments.device,
            precision=arguments.precision,
        )
    if arguments.json:
        print(json.dumps({"probability": verdict.probability} | asdict(verdict)))
        return 0
    parts = [*verdict.members.items(), *verdict.families.items()]
    if parts:
        table("", ("", "probability"), [(name, f"{value:.4f}") for name, value in parts], numbers=1)
    print(f"{verdict.answer}   (probability {verdict.probability:.4f})")
    return 0


def _pairs(words: list[str]) -> list[tuple[str, str, str]]:
    return [word.rpartition("=") for word in words]
