"""Explain a decision: what each word and each area of the picture adds to it, and what would change it.

Writes OUT, a page that needs no network. Of several examples, OUT is a list, with a page for each beside it.
With --attention it shows where a model looks instead: all layers and heads, also as PNG pictures. Regions of
a picture come from the store used in training or from --features, with the picture's file name without the
extension as key; or from --detector, with the settings of the training features. Of a study, the blend is
explained, and the scores of its members are shown. Several pictures (NLVR2)
are given in their order. With --ids, examples of a split are shown instead. --check says whether the
explanations of a model can be believed.

try:
  diptych explain runs/uniter_tiny/seed1 memes/img/00001.png --text "what a day" --out why.html
  diptych explain runs/uniter_tiny/seed1 --ids 3,7 --split dev_seen --json why.json
  diptych explain runs/uniter_tiny/seed1 --batch --split dev_seen --out why/index.html
  diptych explain runs/study/vilio_tiny --ids 3,7 --split dev_seen
  diptych explain runs/uniter_tiny/seed1 --check --split dev_seen --plot removal.png
  diptych explain runs/uniter_tiny/seed1 --attention memes/img/00001.png --text "what a day"
  diptych explain runs/uniter_tiny/seed1 --attention --ids 3,7 --split dev_seen --out two.html
  diptych explain bundles/vlbert --attention new.png --text "a dog" --detector vgattr --weights ATTR.pkl
  diptych explain runs/text --attention --text "what a day" --maps arrays
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.cli.checking import check_explanations
from diptych.cli.extract import add_detector
from diptych.cli.options import add_data, add_device, add_out, add_overwrite, add_policy, add_root
from diptych.cli.policy import decided
from diptych.cli.subject import Subject, chosen, stores_of, subject
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.calibrate import Policy
    from diptych.explain import Evidence
    from diptych.memory import Memory, Recall


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "run", type=Path, help="a run, a bundle, or a study's folder; with --attention also a pre-trained one"
    )
    add("images", type=Path, nargs="*", metavar="picture", help="a picture; of NLVR2, two")
    add("--attention", action="store_true", help="show the attention maps instead")
    add("--text", help="the text of the picture")
    add("--text-b", help="a second text, such as an answer or a translation")
    add("--ids", help="show these examples of --split instead: ids, comma-separated")
    add("--batch", action="store_true", help="explain all examples of --split")
    add("--split", help="the split of --ids and --batch, and of other pictures and texts to try")
    add_root(parser, "of --ids (default: the one trained on)")
    add_data(parser)
    add_out(parser, "the page (default: why.html, attention.html)")
    add("--json", type=Path, metavar="FILE", help="also write the explanation as JSON, a list")
    add("--check", action="store_true", help="check the explanations of --split instead; see --limit")
    add("--limit", type=int, default=40, help="of --check, the first examples (default: 40)")
    add("--plot", type=Path, metavar="FILE", help="of --check, draw the removal curves, a PNG")
    add("--permutations", type=int, default=10, help="orders of words and areas (default: 10)")
    add("--groups", type=int, default=16, help="largest number of areas of a picture (default: 16)")
    add("--seed", type=int, default=0, help="of the orders (default: 0)")
    add("--maps", type=Path, metavar="FOLDER", help="also write all maps as .npy, with names.json")
    add("--layer", type=int, help="layer in detail, from 1 (default: where text and picture look most)")
    add("--head", type=int, help="head in detail, from 1")
    add(
        "--features",
        action="append",
        default=[],
        help="feature store or boxes.jsonl (default: as trained); of a study, NAME=FOLDER",
    )
    add("--more-features", type=Path, help="the second store of a model that merges two")
    add_detector(parser, default=None)
    add_overwrite(parser, "replace the page, its pictures and the maps")
    add("--memory", type=Path, help="also show which cases vote, from a folder of `diptych memory`")
    add_policy(parser)
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.check:
        return check_explanations(arguments)
    if not arguments.attention:
        return _evidence(arguments)
    from diptych.explain import explain_attention, export_maps
    from diptych.files import require_new
    from diptych.predict import load
    from diptych.report import attention_page
    from diptych.report.attention import picture_places
    from diptych.study import is_study

    if is_study(arguments.run):
        raise ConfigError(
            f"{arguments.run} is a study, and attention is of one model; give the folder of a member."
        )
    arguments.out = arguments.out or Path("attention.html")
    # Attention needs no task, so a pre-trained model will do.
    predictor = load(arguments.run, device=arguments.device, precision=arguments.precision, pretrained=True)
    with chosen(predictor, arguments.run, stores_of(arguments), arguments) as (examples, sources, _):
        # The outputs are checked before the work, and the inputs are kept from being replaced.
        keep = {"overwrite": arguments.overwrite, "inputs": arguments.images}
        require_new(arguments.out, kind="a page of diptych", **keep)
        for place in picture_places(arguments.out, sum(len(example.pairs) for example in examples)):
            require_new(place, kind="a PNG picture", **keep)
        maps = [explain_attention(predictor, example, sources) for example in examples]
    if arguments.maps is not None:
        export_maps(maps, arguments.maps, overwrite=arguments.overwrite)
    name = str(predictor.bundle.provenance.get("name") or arguments.run.name)
    title = f"Attention of {name}"
    page, *pictures = attention_page(
        maps, arguments.out, title=title, layer=arguments.layer, head=arguments.head
    )
    for example in maps:
        heads = sum(len(layer.weights) for layer in example.pairs[0].layers)
        places = ", ".join(str(len(pair.places)) for pair in example.pairs)
        answer = f", answer: {example.answer}" if example.answer else ""
        print(
            f"{example.id}: {len(example.pairs[0].layers)} layers, {heads} heads, {places} positions{answer}"
        )
    print(f"wrote {page} and {', '.join(place.name for place in pictures)}")
    return 0


def _evidence(arguments: argparse.Namespace) -> int:
    from diptych.explain import Budget, evidence_of, smallest_change, swaps
    from diptych.files import require_new

    # Options of the other page would be ignored without a word.
    if arguments.maps is not None or arguments.layer is not None or arguments.head is not None:
        raise ConfigError("--maps, --layer and --head are for --attention; add it.")
    budget = Budget(permutations=arguments.permutations, groups=arguments.groups, seed=arguments.seed)
    policy = None
    if arguments.policy is not None:
        from diptych.calibrate import Policy
        from diptych.study import model_of

        policy = Policy.load(arguments.policy)
        # Before the model is loaded: thresholds of one model mean nothing for another.
        policy.require_model(model_of(arguments.run))
    memory = None
    if arguments.memory is not None:
        from diptych.memory import Memory
        from diptych.predict import bundle_checksum
        from diptych.study import is_study

        if is_study(arguments.run):
            raise ConfigError("a memory is of one model; give the folder of a member, or leave out --memory.")
        memory = Memory.load(arguments.memory)
        memory.require_model(bundle_checksum(arguments.run), where=arguments.memory)
    with subject(arguments) as asked:
        arguments.out = arguments.out or Path("why.html")
        pages = _pages(arguments.out, len(asked.examples))
        keep = {"overwrite": arguments.overwrite, "inputs": arguments.images}
        # Of one example both are the same file.
        for page in dict.fromkeys([arguments.out, *pages]):
            require_new(page, kind="a page of diptych", **keep)
        if arguments.json is not None:
            require_new(arguments.json, kind="a page of diptych", **keep)
        recalls = None if memory is None else _recalls(asked, memory)
        found, members = [], []
        for number in range(len(asked.examples)):
            variants = asked.variants(number, budget)
            why = evidence_of(variants)
            # The fewest hidden parts first, then what other pictures and texts would do.
            least = smallest_change(variants, why)
            tried = [] if asked.dataset is None else swaps(variants, asked.dataset)
            found.append(replace(why, changes=(*([] if least is None else [least]), *tried)))
            members.append(asked.members(variants, why.explained))
        _write(arguments, asked, found, members, pages, policy, recalls or [None] * len(found))
    return 0


def _recalls(asked: Subject, memory: "Memory") -> "list[Recall | None]":
    """What the memory says to each example."""
    from diptych.memory import ask, recall_all
    from diptych.predict import Listed

    one = asked.first
    vectors = ask(
        one.predictor,
        Listed(one.examples),
        memory.parts,
        features=one.sources.regions,
        images=one.sources.images,
    )
    return [*recall_all(memory, vectors.vectors, vectors.scores)]


def _pages(out: Path, count: int) -> list[Path]:
    """The page of each example: OUT itself, or numbered ones beside it."""
    return [out] if count == 1 else [out.with_name(f"{out.stem}-{n}.html") for n in range(1, count + 1)]


def _write(
    arguments: argparse.Namespace,
    asked: Subject,
    found: "list[Evidence]",
    members: list[dict[str, float]],
    pages: list[Path],
    policy: "Policy | None",
    recalls: "list[Recall | None]",
) -> None:
    import json

    from diptych.explain import explanation, probability
    from diptych.files import atomic_file
    from diptych.report import evidence_page, in_short, index_page

    facts = _facts(arguments.run, asked)
    name = facts["model"]
    for why, example, page, recall, scores in zip(
        found, asked.examples, pages, recalls, members, strict=True
    ):
        # Soft and several labels are no single truth to compare an answer with.
        truth = example.target if isinstance(example.target, str) else None
        done = None if policy is None else decided(policy, why.scores)
        evidence_page(
            why,
            page,
            title=name,
            facts=facts,
            members=scores,
            truth=truth,
            policy=None if done is None else (done["action"], done["why"]),
            threshold=_threshold(asked, why),
            recall=recall,
        )
        print(f"{why.id}: {why.answer} ({why.explained} {probability(why.both):.2f}). {in_short(why)}")
    if len(found) > 1:
        index_page(found, arguments.out, pages=pages, title=name)
    if arguments.json is not None:
        with atomic_file(arguments.json, "w", encoding="utf-8") as file:
            # NaN is no JSON: better an error here than in the reader.
            documents = [
                explanation(
                    why, model=facts, members=scores, memory=None if recall is None else recall.as_dict()
                )
                for why, recall, scores in zip(found, recalls, members, strict=True)
            ]
            file.write(f"{json.dumps(documents, indent=1, allow_nan=False)}\n")
    print(f"wrote {arguments.out}" + (f" and {len(pages)} pages" if len(pages) > 1 else ""))


def _threshold(asked: Subject, why: "Evidence") -> str | None:
    """When a blend gives its answer; a single model gives the likeliest class."""
    if asked.blend is None:
        return None
    (_, positive), limit = why.scores, asked.blend.fitted.threshold
    return f"the blend answers {positive} from a probability of {limit:.3f} on, which was fitted on dev"


def _facts(run: Path, asked: Subject) -> dict[str, str]:
    """What identifies a model, or a study and its members."""
    from diptych import __version__
    from diptych.study import model_of

    if asked.blend is not None:
        families = sorted({about["family"] for about in asked.blend.tree["members"].values()})
        return {
            "model": asked.blend.tree["study"],
            "family": f"study of {len(asked.readers)} members: {', '.join(families)}",
            "blend": asked.blend.tree["method"],
            "diptych": __version__,
            # Of the list that names the members by the keys of their settings.
            "weights": f"sha256 {model_of(run)}",
        }
    predictor = asked.first.predictor
    about = predictor.bundle.provenance
    facts = {
        "model": str(about.get("name") or run.name),
        "family": type(predictor.model).__name__,
        "diptych": __version__,
    }
    facts |= {"seed": str(about["seed"])} if "seed" in about else {}
    # By their content: the name of a run does not change when it is trained again.
    return facts | {"weights": f"sha256 {_checksum(run)}"}


def _checksum(run: Path) -> str:
    """Digest of the weights, by which a reader can tell that two pages are of one model."""
    import hashlib

    from diptych.bundle import find_bundle

    with (find_bundle(run) / "weights.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
