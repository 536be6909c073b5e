from diptych.detect import ExtractSettings, extract
from diptych.features import FeatureStore

settings = ExtractSettings(detector="tiny", rules=("5", "2:10"), dtype="float16")
report = extract("memes/img", "regions/again", settings, shard=64, bad="skip")
for store in report.stores:
    print(store.path.name, store.images, store.regions, len(store.bad))
print(FeatureStore("regions/again/tiny-random5").meta)
