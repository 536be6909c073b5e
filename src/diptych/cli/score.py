"""Score one picture and its text with a trained model, or with all members of a study and their blend.

A model that answers questions prints its five best answers. A model of NLVR2 takes two pictures, the left one
first. Regions come from the feature stores used in training, or from --features; the picture's file name
without the extension is the key. With --weights, the detectors behind those stores extract the regions from
the pictures, by the same box rules. With --policy, the last line says whether to allow, review or block.
Without --text, the words are read from the picture (the extra `ocr`), and the output says so.

try:
  diptych score memes/img/00001.png --text "what a day" --model runs/uniter_tiny/seed1
  diptych score memes/img/00001.png --text "what a day" --model runs/study/vilio_tiny --json
  diptych score memes/img/00001.png --model runs/uniter_tiny/seed1 --lines all
  diptych score new.png --text "what a day" --model runs/uniter --weights vgattr=ATTR.pkl
  diptych score new.png --text "what is on the table?" --model bundles/vqa --weights vgattr=ATTR.pkl
  diptych score a.png b.png --text "Both images show dogs." --model runs/nlvr2
"""

import argparse
import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from diptych.cli.options import add_device, add_json, add_ocr, add_policy
from diptych.cli.output import table
from diptych.cli.policy import decided
from diptych.cli.words import text_of
from diptych.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=Path, nargs="+", metavar="image", help="a picture; of NLVR2, two")
    parser.add_argument("--text", help="its text (default: the words in the picture)")
    add_ocr(parser, "read the words from the picture, which is the default without --text")
    parser.add_argument("--model", type=Path, required=True, help="a run, a bundle, or a study's folder")
    parser.add_argument(
        "--features",
        action="append",
        default=[],
        help="feature store or boxes.jsonl (default: as trained); NAME=FOLDER if there are several",
    )
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        help="extract regions from the picture: DETECTOR=FILE or DETECTOR=random, for each detector",
    )
    parser.add_argument(
        "--boxes", default="36", help="box rule for a model that knows no store (default: 36)"
    )
    add_policy(parser)
    add_device(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.files import require_file
    from diptych.predict import find_device
    from diptych.study import found_in, model_of, score_meme

    for image in arguments.images:
        # Before a model of gigabytes is loaded.
        require_file(image, "a picture file")
    policy = None
    if arguments.policy is not None:
        from diptych.calibrate import Policy

        policy = Policy.load(arguments.policy)
        policy.require_model(model_of(arguments.model))
    # Two sources of regions could disagree, and nobody would see which one was used.
    if arguments.weights and arguments.features:
        raise ConfigError("--features and --weights exclude each other: a store, or a detector's weights.")
    # Without a name, the one store of a single model.
    given = {name or "features": Path(place) for name, _, place in _pairs(arguments.features)}
    if arguments.ocr and arguments.text is not None:
        raise ConfigError("--ocr and --text exclude each other: the words of the picture, or given ones.")
    read = text_of(arguments, arguments.images)
    with ExitStack() as stack:
        if arguments.weights:
            files = {
                name: None if file == "random" else Path(file) for name, _, file in _pairs(arguments.weights)
            }
            device = str(find_device(arguments.device))
            # the stores are temporary and must exist until the score is computed
            given = stack.enter_context(
                found_in(arguments.images, arguments.model, files, boxes=arguments.boxes, device=device)
            )
        verdict = score_meme(
            arguments.model,
            image=arguments.images,
            text=read.text,
            features=given,
            device=arguments.device,
            precision=arguments.precision,
        )
    if arguments.json:
        more = {} if policy is None else {"decision": decided(policy, verdict.scores)}
        # Always: a program must be able to tell a text that was read from one that was given.
        more["read"] = read.as_dict()
        print(json.dumps({"probability": verdict.probability} | asdict(verdict) | more))
        return 0
    parts = [*verdict.members.items(), *verdict.families.items()]
    # Two classes are told by the last line alone; of more, the order is what people look for.
    if len(verdict.scores) > 2:
        parts = sorted(verdict.scores.items(), key=lambda pair: -pair[1])
    if parts:
        table("", ("", "probability"), [(name, f"{value:.4f}") for name, value in parts], numbers=1)
    print(f"{verdict.answer}   (probability {verdict.probability:.4f})")
    if policy is not None:
        print(decided(policy, verdict.scores)["line"])
    return 0


def _pairs(words: list[str]) -> list[tuple[str, str, str]]:
    """Split NAME=PATH at its last `=`; without one, NAME is empty."""
    return [word.rpartition("=") for word in words]
