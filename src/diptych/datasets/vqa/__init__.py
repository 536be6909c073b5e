"""VQA v2: official files and LXMERT's, the file for EvalAI, and a miniature world in its format."""

from diptych.datasets.vqa.split import Vqa

__all__ = ["Vqa"]
