import diptych
from diptych.data import Collate, DataModule, Sources
from diptych.datasets import HatefulMemes
from diptych.features import FeatureStore

bundle = diptych.load("runs/both").bundle
model, task = bundle.model, bundle.task
data = DataModule(
    train=HatefulMemes("memes", "train"),
    validate=HatefulMemes("memes", "dev_seen"),
    collate=Collate(
        bundle.processor, sources=Sources(regions=FeatureStore("memes/features")), targets=task.targets
    ),
)

from diptych.train import Trainer, adamw, fit, linear

result = fit(
    model,
    task,
    data,
    folder="runs/one",
    optim=adamw(lr=1e-5),
    schedule=linear(warmup=0.1),
    trainer=Trainer(max_epochs=5, patience=3),
    seed=1,
)
print(result.metrics, result.best_step)
