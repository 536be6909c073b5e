"""One training run as one call, from a configuration to a bundle."""

from diptych.recipe.run import Run, build_parts, run_recipe

__all__ = ["Run", "build_parts", "run_recipe"]
