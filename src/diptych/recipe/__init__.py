"""One training run as one call, from a configuration to a bundle."""

from diptych.recipe.build import Parts, build
from diptych.recipe.compose import as_yaml, combinations, compose
from diptych.recipe.run import Run, run_recipe
from diptych.recipe.settle import Settled, settle

__all__ = ["Parts", "Run", "Settled", "as_yaml", "build", "combinations", "compose", "run_recipe", "settle"]
