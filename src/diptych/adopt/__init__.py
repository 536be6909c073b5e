"""Weight files of others as bundles of diptych, and the way back.

Above `bundle`, because it writes one; what files of a family look like is said in `convert`.
"""

from diptych.adopt.convert import convert_checkpoint, inspect_checkpoint, restore_checkpoint
from diptych.adopt.report import Inspection, certificate

__all__ = ["Inspection", "certificate", "convert_checkpoint", "inspect_checkpoint", "restore_checkpoint"]
