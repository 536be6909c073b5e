import numpy as np

from diptych.features import FeatureStore, StoreWriter
from diptych.types import FeatureMeta, Regions

meta = FeatureMeta(feature_dim=1024, detector="mine", classes=("cat", "dog"), dtype="float16")
with StoreWriter("features/mine", meta) as writer:
    for key in ("00001", "00002"):
        regions = Regions(
            features=np.ones((2, 1024), np.float32),
            boxes=np.array([[0, 0, 50, 50], [20, 20, 200, 100]], np.float32),
            size=(320, 240),
            labels=np.array([0, 1]),
            scores=np.array([0.9, 0.8], np.float32),
        )
        writer.add(key, regions)

store = FeatureStore("features/mine")
print(len(store), store.meta.box_rule, store["00001"].boxes, store.count(2))
