"""Copy an experiment to edit it.

try:
  diptych cp hateful_memes/uniter_tiny conf      writes conf/experiment/my/uniter_tiny.yaml
  diptych train --config-dir conf experiment=my/uniter_tiny root=FOLDER
"""

import argparse
from pathlib import Path

from diptych import conf
from diptych.errors import ConfigError, nearest
from diptych.files import atomic_file, reserved


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment", help="a name from `diptych ls experiment`")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("conf"), help="default: conf")


def run(arguments: argparse.Namespace) -> int:
    name = arguments.experiment.removesuffix(".yaml").removeprefix("experiment/")
    known = conf.names("experiment")
    if name not in known:
        raise ConfigError(
            f"there is no experiment {name!r}.{nearest(name, known)} `diptych ls experiment` lists them."
        )
    # Under `my/`, so that it hides none of the experiments that come with the package.
    short = Path(name).name
    target = arguments.folder / "experiment" / "my" / f"{short}.yaml"
    text = (conf.CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    # Refuses an existing copy, which may have been edited.
    with reserved(target), atomic_file(target, "w", encoding="utf-8") as file:
        file.write(text)
    print(f"wrote {target}; edit it, then:")
    print(f"  diptych train --config-dir {arguments.folder} experiment=my/{short} root=FOLDER")
    return 0
