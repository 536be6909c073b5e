import diptych
from diptych.features import FeatureStore

store = FeatureStore("memes/features")
predictor = diptych.load("runs/both")
verdict = predictor.predict(text="what a lovely red ball", regions=store["00039"])
print(verdict.answer, verdict.scores["hateful"])
