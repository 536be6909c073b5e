"""Data sets from your own tables: reading splits, guessing columns, and a miniature world as a table."""

from diptych.datasets.table.guess import Guess, guess_table
from diptych.datasets.table.split import Table

__all__ = ["Guess", "Table", "guess_table"]
