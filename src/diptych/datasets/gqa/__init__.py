"""GQA: official files and LXMERT's, the file for the server, and a miniature world in its format."""

from diptych.datasets.gqa.split import Gqa

__all__ = ["Gqa"]
