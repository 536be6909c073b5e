from pathlib import Path

from diptych.ensemble import read_predictions as read
from diptych.ensemble import write_predictions as write

Path("vilio_e.csv").write_text("id,proba,label\n8291,1.5,1\n46971,-0.5,0\n")
Path("uniter.csv").write_text("id,proba,label\n8291,0.9,1\n46971,0.2,0\n")
write(read("uniter.csv"), "uniter.npz")

from diptych.ensemble import agreement, blend, read_predictions, write_predictions

members = [read_predictions("vilio_e.csv", kind="logit"), read_predictions("uniter.npz")]
average = blend(members, method="mean", weights=[1.0, 2.0])
write_predictions(average, "average.csv")
print(agreement(members))  # Spearman correlations; the lower, the more there is to gain
print(average.meta)  # members, method and weights travel with an .npz

from random import Random

Path("vilio").mkdir()
for name in ("O", "U", "V"):
    for split, first in (("dev_seen", 0), ("test_seen", 100)):
        chance = Random(name + split)
        rows = [f"{first + n},{chance.random() / 2 + n % 2 / 3:.4f},0\n" for n in range(40)]
        Path(f"vilio/{name}_{split}.csv").write_text("id,proba,label\n" + "".join(rows))

from diptych.ensemble import fit_blend, read_members

members = read_members([Path("vilio")])
truth = {str(number): number % 2 for number in range(40)}
blends, report = fit_blend(members, truth, dev="dev_seen", method="simplex")
print(report.in_sample, report.out_of_fold, report.optimism)  # AUROC, low, high
print(report.rounds[0].weights, report.best_member)
print(blends["test_seen"].column("1"))
