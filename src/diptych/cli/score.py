"""Score one meme: by a trained model, or by all members of a study and their blend.

Regions come from the stores that the models were trained with, or from those named here; the name of the
picture's file is the key.

try:
  diptych score memes/img/00001.png --text "what a day" --model runs/uniter_tiny/seed1
  diptych score memes/img/00001.png --text "what a day" --model runs/study/vilio_tiny --json
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from diptych.cli.screen import table
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
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--precision", choices=("32", "bf16"), default="32", help="default: 32")
    parser.add_argument("--json", action="store_true", help="all numbers, for programs")


def run(arguments: argparse.Namespace) -> int:
    from diptych.study import score_meme

    if not arguments.image.is_file():
        raise ConfigError(f"{arguments.image} does not exist; expected a picture.")
    given = [word.rpartition("=") for word in arguments.features]
    opinion = score_meme(
        arguments.model,
        image=arguments.image,
        text=arguments.text,
        features={name or "features": Path(place) for name, _, place in given},
        device=arguments.device,
        precision=arguments.precision,
    )
    if arguments.json:
        print(json.dumps(asdict(opinion)))
        return 0
    parts = [*opinion.members.items(), *opinion.families.items()]
    if parts:
        table("", ("", "probability"), [(name, f"{value:.4f}") for name, value in parts], numbers=1)
    print(f"{opinion.answer}   (probability {opinion.probability:.4f})")
    return 0
