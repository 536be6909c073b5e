"""Score one picture and its text with a trained model, or with all members of a study and their blend.

A model that answers questions prints its five best answers. A model of NLVR2 takes two pictures, the left one
first. Regions come from the feature stores used in training, or from --features; the picture's file name
without the extension is the key. With --weights, the detectors behind those stores extract the regions from
the pictures, by the same box rules. A head on the vectors of `diptych embed` takes --towers, the model that
made them. Without --text, the words are read from the picture (the extra `ocr`),
and the output says so. With --memory, cases of `diptych memory` vote, too, and the nearest are named. With
--policy, the last line says whether to allow, review or block.

try:
  diptych score memes/img/00001.png --text "what a day" --model runs/uniter_tiny/seed1
  diptych score memes/img/00001.png --text "what a day" --model runs/study/vilio_tiny --json
  diptych score memes/img/00001.png --model runs/uniter_tiny/seed1 --lines all
  diptych score new.png --text "what a day" --model runs/uniter --weights vgattr=ATTR.pkl
  diptych score new.png --text "what is on the table?" --model bundles/vqa --weights vgattr=ATTR.pkl
  diptych score new.png --text "what a day" --model runs/head --towers clip_l14
  diptych score new.png --text "what a day" --model runs/uniter --memory memory
  diptych score a.png b.png --text "Both images show dogs." --model runs/nlvr2
"""

import argparse
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.cli.options import add_device, add_json, add_ocr, add_policy
from diptych.cli.output import table
from diptych.cli.policy import decided
from diptych.cli.recall import say_recall
from diptych.cli.words import text_of
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.memory import Memory, Recall
    from diptych.predict import Verdict


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
        "--towers",
        type=Path,
        help="of a head on stored vectors: the model that made them, to embed the picture",
    )
    parser.add_argument(
        "--boxes", default="36", help="box rule for a model that knows no store (default: 36)"
    )
    parser.add_argument("--memory", type=Path, help="cases that vote, a folder of `diptych memory`")
    add_policy(parser)
    add_device(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.files import require_file
    from diptych.predict import find_device
    from diptych.study import found_in, model_of, tokenizer_of

    for image in arguments.images:
        # Before a model of gigabytes is loaded.
        require_file(image, "a picture file")
    policy = None
    if arguments.policy is not None:
        from diptych.calibrate import Policy

        policy = Policy.load(arguments.policy)
        policy.require_model(model_of(arguments.model))
    memory = None if arguments.memory is None else _memory(arguments)
    # Two sources of regions could disagree, and nobody would see which one was used.
    if sum(map(bool, (arguments.weights, arguments.features, arguments.towers))) > 1:
        raise ConfigError(
            "--features, --weights and --towers exclude each other: a store, a detector's weights, or the "
            "model that makes vectors."
        )
    # Without a name, the one store of a single model.
    given = {name or "features": Path(place) for name, _, place in _pairs(arguments.features)}
    if arguments.ocr and arguments.text is not None:
        raise ConfigError("--ocr and --text exclude each other: the words of the picture, or given ones.")
    read = text_of(arguments, arguments.images, lambda: tokenizer_of(arguments.model))
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
        if arguments.towers is not None:
            given = {"features": stack.enter_context(_embedded(arguments, read.text or ""))}
        verdict, recall = _verdict(arguments, read.text, given, memory)
    if arguments.json:
        decision = {} if policy is None else {"decision": decided(policy, verdict.scores)}
        remembered = {} if recall is None else {"memory": recall.as_dict()}
        # Always: a program must be able to tell a text that was read from one that was given.
        more = {"read": read.as_dict()} | remembered | decision
        print(json.dumps({"probability": verdict.probability} | asdict(verdict) | more))
        return 0
    parts = [*verdict.members.items(), *verdict.families.items()]
    # Two classes are told by the last line alone; of more, the order is what people look for.
    if len(verdict.scores) > 2:
        parts = sorted(verdict.scores.items(), key=lambda pair: -pair[1])
    if parts:
        table("", ("", "probability"), [(name, f"{value:.4f}") for name, value in parts], numbers=1)
    # A blend need not answer by one half, so a probability alone would not tell why.
    limit = "" if verdict.threshold is None else f"; {[*verdict.scores][-1]} from {verdict.threshold:.4f} on"
    print(f"{verdict.answer}   (probability {verdict.probability:.4f}{limit})")
    if memory is not None and recall is not None:
        say_recall(memory, recall)
    if policy is not None:
        print(decided(policy, verdict.scores)["line"])
    return 0


def _embedded(arguments: argparse.Namespace, text: str) -> AbstractContextManager[Path]:
    from diptych.predict import embedded, stored_vectors
    from diptych.study import is_study

    head = None if is_study(arguments.model) else stored_vectors(arguments.model)
    if head is None or len(arguments.images) > 1:
        raise ConfigError(
            f"--towers is for a head on stored vectors and one picture; {arguments.model} is another model."
        )
    how = {"device": arguments.device, "precision": arguments.precision}
    return embedded(head, arguments.towers, arguments.images[0], text, **how)


def _memory(arguments: argparse.Namespace) -> "Memory":
    """The memory, if it is for the model; before a model of gigabytes is loaded."""
    from diptych.memory import Memory
    from diptych.study import is_study, model_of

    if is_study(arguments.model) or len(arguments.images) > 1:
        raise ConfigError("a memory is of one model and single pictures; give --model a run or a bundle.")
    memory = Memory.load(arguments.memory)
    memory.require_model(model_of(arguments.model), where=arguments.memory)
    return memory


def _verdict(
    arguments: argparse.Namespace, text: str | None, given: Mapping[str, Path], memory: "Memory | None"
) -> "tuple[Verdict, Recall | None]":
    from diptych.study import score_meme

    how: dict[str, Any] = {
        "text": text,
        "device": arguments.device,
        "precision": arguments.precision,
    }
    if memory is None:
        return score_meme(arguments.model, image=arguments.images, features=given, **how), None
    from diptych.memory import ask_meme

    if unknown := sorted(given.keys() - {"features", "more_features"}):
        raise ConfigError(f"a single model reads no features called {unknown[0]!r}; expected features.")
    return ask_meme(
        arguments.model,
        memory,
        image=arguments.images[0],
        features=given.get("features"),
        more_features=given.get("more_features"),
        **how,
    )


def _pairs(words: list[str]) -> list[tuple[str, str, str]]:
    """Split NAME=PATH at its last `=`; without one, NAME is empty."""
    return [word.rpartition("=") for word in words]
