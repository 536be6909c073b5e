"""Publish a bundle with its model card on the Hugging Face hub.

SOURCE is a bundle or a run folder, TARGET is hub:owner/name[@branch]. Log in with `hf auth login`, or set
HF_TOKEN. What is published: weights, settings, vocabulary, and the card; never the paths of your data.

try:
  diptych push runs/mine hub:me/memes --license apache-2.0
  diptych push runs/mine hub:me/memes --policy policy.yaml --private
"""

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="a bundle, or a run folder")
    parser.add_argument("target", help="hub:owner/name, optionally with @branch")
    parser.add_argument("--license", help="license for the card, such as apache-2.0 (default: none is named)")
    parser.add_argument(
        "--policy", type=Path, help="a file of `diptych calibrate` to publish beside the weights"
    )
    parser.add_argument("--private", action="store_true", help="make a new repository private")


def run(arguments: argparse.Namespace) -> int:
    from diptych.convert import push_bundle

    promise = "" if arguments.policy is None else promised(arguments.policy, arguments.source)
    address = push_bundle(
        arguments.source,
        arguments.target,
        license=arguments.license,
        policy=arguments.policy,
        promise=promise,
        private=arguments.private,
    )
    print(f"published {address}")
    return 0


def promised(path: Path, source: Path) -> str:
    """What a policy of this model promises, for the card; a policy of another model is refused."""
    from diptych.calibrate import Policy
    from diptych.predict import bundle_checksum

    policy = Policy.load(path)
    policy.require_model(bundle_checksum(source))
    lines = [
        f"`policy.yaml`, made {policy.made} from the {policy.dev['examples']:,} labeled examples of "
        f"`{policy.dev['split']}`, makes decisions of calibrated scores:\n",
        "| label | map | allowed below | blocked above | missed at most | wrongly blocked at most |",
        "|---|---|---|---|---|---|",
    ]
    for label, rule in policy.labels.items():
        cells = (rule.allow, rule.block, rule.max_miss, rule.max_wrong_block)
        shown = " | ".join("-" if value is None else f"{value:.3f}" for value in cells)
        lines.append(f"| {label} | {rule.map.method} | {shown} |")
    return "\n".join(lines)
