"""Configuration files. The folder is the catalogue of what there is; reading it needs no framework."""

from pathlib import Path

CONF = Path(__file__).parent


def names(group: str) -> list[str]:
    """Options of a configuration group, sub-folders included, as a person types them."""
    folder = CONF / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def summary(group: str, name: str) -> str:
    """The first comment of a file that is not a Hydra directive."""
    for line in (CONF / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @"):
            return line.lstrip("# ").strip()
    return ""


def top_level_keys() -> list[str]:
    """Keys of `train.yaml`, one level of nesting included."""
    import yaml

    tree = yaml.safe_load((CONF / "train.yaml").read_text(encoding="utf-8"))
    nested = [f"{key}.{inner}" for key, value in tree.items() if isinstance(value, dict) for inner in value]
    return [key for key in tree if key not in ("defaults", "hydra")] + nested
