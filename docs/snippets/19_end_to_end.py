import numpy as np

import diptych
from diptych.data import bare_regions
from diptych.images import image_size

predictor = diptych.load("runs/pixels")
boxes = bare_regions(np.array([[10, 20, 120, 200]], np.float32), image_size("memes/img/00001.png"))
verdict = predictor.predict(image="memes/img/00001.png", text="what a day", regions=boxes)
print(verdict.answer, predictor.predict(image="memes/img/00001.png", text="what a day").answer)
