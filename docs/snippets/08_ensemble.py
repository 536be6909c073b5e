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
