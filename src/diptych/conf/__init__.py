"""Configuration files of Hydra, and functions that list them without importing Hydra."""

from pathlib import Path

CONF = Path(__file__).parent


def names(group: str) -> list[str]:
    """Return the names in a configuration group, as typed: `hateful_memes/uniter_tiny`."""
    folder = CONF / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def summary(group: str, name: str) -> str:
    """Return the first comment of a file, or an empty string; `# @package` is a directive of Hydra."""
    for line in (CONF / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        # The first line that a person wrote.
        if line.startswith("#") and not line.startswith("# @"):
            return line.lstrip("# ").strip()
    return ""


def top_level_keys() -> list[str]:
    """Return the keys of `train.yaml` and the keys directly below them, such as `fasttext.dim`."""
    # Imported late: most commands only list names.
    import yaml

    tree = yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))
    nested = [f"{key}.{inner}" for key, value in tree.items() if isinstance(value, dict) for inner in value]
    return [key for key in tree if key not in ("defaults", "hydra")] + nested
