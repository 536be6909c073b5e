from diptych.text import FastText, train_fasttext

texts = ["a red ball on a green table", "nothing is as silly as a blue car"] * 10
train_fasttext(texts, "small.bin", dim=20, min_count=1, bucket=2_000)
vectors = FastText("small.bin")
print(vectors.vector("a red car").shape, vectors.vectors(texts).shape)
