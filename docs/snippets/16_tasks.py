from functools import partial

from diptych.models import uniter_tiny
from diptych.nn import ClassifierHead, PairAttention
from diptych.tasks import Answer, Classify

model = uniter_tiny()
vqa = Answer(model, answers=["yes", "no", "red"], head=partial(ClassifierHead, layers=2))
nlvr2 = Classify(model, labels=["False", "True"], pairs=2, readout=partial(PairAttention, heads=4))

assert vqa.reads == {"pooled"}
assert nlvr2.reads == {"text", "regions"}
