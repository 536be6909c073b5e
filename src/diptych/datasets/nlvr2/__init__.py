"""NLVR2: statements about two photographs, official JSON lines and LXMERT's lists."""

from diptych.datasets.nlvr2.split import Nlvr2

__all__ = ["Nlvr2"]
