"""Training runs: compose a configuration, train, and save a bundle with one call."""

from diptych.recipe.build import Parts, build
from diptych.recipe.compose import as_yaml, combinations, compose
from diptych.recipe.run import Run, run_recipe
from diptych.recipe.settle import Settled, settle

__all__ = ["Parts", "Run", "Settled", "as_yaml", "build", "combinations", "compose", "run_recipe", "settle"]
