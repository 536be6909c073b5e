"""Bundles on the Hugging Face hub: publish one, fetch one. HF_ENDPOINT names another server."""

import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from diptych.bundle import find_bundle, load_bundle, read_content
from diptych.card import card
from diptych.convert.fetch import HUB, cache
from diptych.convert.report import certificate
from diptych.errors import ConfigError, missing_library
from diptych.files import atomic_folder, require_new

# What a bundle consists of; whatever else lies in its folder, or in a repository, stays where it is.
FILES = ("bundle.yaml", "weights.safetensors", "README.md", "policy.yaml", "files/*")


def push_bundle(
    folder: Path, target: str, *, license: str | None = None, policy: Path | None = None, promise: str = "",
    private: bool = False,
) -> str:  # fmt: skip
    """Publish a bundle, with its card, as one commit; returns the address of the commit.

    Args:
        folder: a bundle, or a run folder.
        target: `hub:owner/name`, optionally with `@branch`. A repository that does not exist is made.
        license: identifier of the hub for the card, such as `apache-2.0`.
        policy: a file of `diptych calibrate`, published beside the weights as `policy.yaml`.
        promise: what the policy promises, for the card.

    Raises:
        ConfigError: the target is no repository, the extra `hub` is missing, or the server refuses.
        FormatError, CheckpointMismatch: the bundle is damaged; nothing is published.
    """
    repo, revision = _target(target)
    bundle = find_bundle(folder)
    load_bundle(bundle)  # whoever fetches it must be able to
    api, content = _api(target), read_content(bundle)
    converted = content.get("provenance", {}).get("converted")
    with TemporaryDirectory() as place:
        for name in _files(bundle):
            _link(bundle / name, Path(place) / name)
        if converted is None or license is not None or policy is not None:
            # The card of a converted bundle says what was left out, which only the conversion knew.
            family = content["model"]["_target_"].rpartition(".")[2].partition("_")[0]
            text = card(content, proofs=certificate(family), license=license, policy=promise)
            (Path(place) / "README.md").unlink(missing_ok=True)
            (Path(place) / "README.md").write_text(text, encoding="utf-8")
        if policy is not None:
            shutil.copyfile(policy, Path(place) / "policy.yaml")
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            done = api.upload_folder(
                repo_id=repo, folder_path=place, revision=revision, allow_patterns=list(FILES),
                commit_message=f"Publish {content['model']['_target_']} with diptych",
            )  # fmt: skip
        except Exception as error:  # also those of the client's HTTP library, which depends on the version
            raise ConfigError(
                f"{target} cannot be published: {str(error).splitlines()[0]}. Log in with `hf auth login`, "
                "and check that you may write to the repository."
            ) from error
    return str(done.commit_url)


def pull_bundle(source: str, out: Path, *, overwrite: bool = False, trust: Collection[str] = ()) -> Path:
    """Fetch a bundle of the hub into the new folder `out`; it appears only if it can be loaded.

    Args:
        source: `hub:owner/name`, optionally with `@revision`.
        overwrite: replace a bundle at `out`.
        trust: as in `diptych.bundle.load_bundle`.

    Raises:
        ConfigError: the repository does not exist, or its bundle calls code that is not trusted.
        FormatError, CheckpointMismatch: the repository has no bundle, or its files are damaged.
    """
    repo, revision = _target(source)
    require_new(out, overwrite=overwrite, kind="a bundle")  # before a download of gigabytes
    api = _api(source)
    try:
        kept = Path(
            api.snapshot_download(
                repo, revision=revision, allow_patterns=list(FILES), cache_dir=cache() / "hub"
            )
        )
    except Exception as error:  # as above
        raise ConfigError(f"{source} cannot be downloaded: {str(error).splitlines()[0]}.") from error
    with atomic_folder(out, kind="a bundle", overwrite=overwrite) as beside:
        for name in _files(kept):
            (beside / name).parent.mkdir(exist_ok=True)
            # The cache of the hub has links, and a bundle must survive when the cache is emptied.
            shutil.copyfile((kept / name).resolve(), beside / name)
        # Not in the cache, whose links lead out of the folder, which a bundle may not.
        load_bundle(beside, trust=trust)
    return out


def _files(folder: Path) -> Iterator[str]:
    for pattern in FILES:
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                yield path.relative_to(folder).as_posix()


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    target.symlink_to(source.resolve())  # weights have gigabytes


def _target(text: str) -> tuple[str, str | None]:
    match = HUB.fullmatch(text)
    if match is None or match["file"] is not None:
        raise ConfigError(f"{text}: expected hub:owner/name, optionally with @revision.")
    return match["repo"], match["revision"]


def _api(text: str) -> Any:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise missing_library(f"{text} needs huggingface_hub", "hub", error) from error
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
