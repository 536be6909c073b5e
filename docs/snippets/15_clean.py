from diptych.datasets.hateful_memes.views import clean
from diptych.datasets import fabricate

report = clean(fabricate("copied_world", size=80).root, "clean_world", near=2)
for decision in report.decisions:
    print(decision.reason, decision.ids, decision.dropped)
print(report.views)  # memes of train, traindev, pretrain
