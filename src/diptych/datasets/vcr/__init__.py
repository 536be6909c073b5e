"""VCR: questions about films, each with four answers and four rationales; texts name objects by number."""

from diptych.datasets.vcr.split import Vcr

__all__ = ["Vcr"]
