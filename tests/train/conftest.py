"""Puts `training_toy` on the path, for these tests and for the processes that they start."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
