import diptych

predictor = diptych.load("runs/mine")
verdict = predictor.predict(image="meme.png", text="what a day")
print(verdict.answer, verdict.scores)
