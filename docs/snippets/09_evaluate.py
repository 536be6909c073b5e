import shutil
from pathlib import Path

from PIL import Image

Path("a.csv").write_text("id,proba,label\n8291,0.9,1\n46971,0.2,0\n")
Path("b.csv").write_text("id,proba,label\n8291,0.7,1\n46971,0.4,0\n")
for name in ("8291", "46971"):
    Image.new("RGB", (64, 64)).save(f"memes/img/{name}.png")
shutil.copy("runs/both/metrics.csv", "runs/uniter/metrics.csv")

from diptych.ensemble import read_predictions
from diptych.evaluate import compare, evaluate

gold = {"8291": "hateful", "46971": "benign"}  # or diptych.datasets.HatefulMemes("memes", "dev_seen")
classes = ("benign", "hateful")  # a CSV of scores does not name them
first, second = (read_predictions(path, classes=classes) for path in ("a.csv", "b.csv"))

result = evaluate(first, gold)
print(result["auroc"].value, result["auroc"].low, result["auroc"].high)
print(result.summary())

difference = compare(second, first, gold)["auroc"]  # second minus first
print(difference.difference, difference.p)

by_country = evaluate(first, gold, groups={"8291": "MX", "46971": "MX"}).by_group
print(by_country["MX"].value, by_country["MX"].low, by_country["MX"].count)

from pathlib import Path

from diptych.report import MemeItem, curves, history, meme_page

curves({"a": first, "b": second}, gold, "curves.png")
history("runs/uniter/metrics.csv", "history.png")

cards = [
    MemeItem(
        image=Path(f"memes/img/{key}.png"),
        text="what the meme says",
        target=gold[key],
        scores={"a": first.align(tuple(gold)).column("hateful")[row]},
    )
    for row, key in enumerate(gold)
]
meme_page(cards, "memes.png", positive="hateful", title="The surest mistakes, and the surest successes")
