"""Your own table: its splits, the guess of its columns, its miniature world."""

from diptych.datasets.table.guess import Guess, guess_table
from diptych.datasets.table.split import Table

__all__ = ["Guess", "Table", "guess_table"]
