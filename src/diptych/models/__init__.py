"""Model families. A family is one file; its builders fix the sizes."""

from diptych.models.concat import (
    Concat,
    concat_bert,
    concat_bert_tiny,
    concat_fasttext,
    concat_fasttext_tiny,
    image_resnet,
    image_resnet_tiny,
    text_bert,
    text_bert_tiny,
    text_fasttext,
    text_fasttext_tiny,
)
from diptych.models.ernievil import ErnieVil, ernievil_base, ernievil_large, ernievil_tiny
from diptych.models.lxmert import Lxmert, lxmert_base, lxmert_tiny
from diptych.models.oscar import Oscar, oscar_base, oscar_large, oscar_tiny
from diptych.models.uniter import Uniter, uniter_base, uniter_large, uniter_tiny
from diptych.models.vilbert import Vilbert, devlbert_base, devlbert_tiny, vilbert_base, vilbert_tiny
from diptych.models.visualbert import VisualBert, visualbert_base, visualbert_tiny
from diptych.models.vlbert import VlBert, mmbert_base, vlbert_base, vlbert_large, vlbert_tiny

__all__ = [
    "Concat",
    "ErnieVil",
    "Lxmert",
    "Oscar",
    "Uniter",
    "Vilbert",
    "VisualBert",
    "VlBert",
    "concat_bert",
    "concat_bert_tiny",
    "concat_fasttext",
    "concat_fasttext_tiny",
    "devlbert_base",
    "devlbert_tiny",
    "ernievil_base",
    "ernievil_large",
    "ernievil_tiny",
    "image_resnet",
    "image_resnet_tiny",
    "lxmert_base",
    "lxmert_tiny",
    "mmbert_base",
    "oscar_base",
    "oscar_large",
    "oscar_tiny",
    "text_bert",
    "text_bert_tiny",
    "text_fasttext",
    "text_fasttext_tiny",
    "uniter_base",
    "uniter_large",
    "uniter_tiny",
    "vilbert_base",
    "vilbert_tiny",
    "visualbert_base",
    "visualbert_tiny",
    "vlbert_base",
    "vlbert_large",
    "vlbert_tiny",
]
