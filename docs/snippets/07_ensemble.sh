mkdir -p runs/uniter
cp runs/both/predictions/dev_seen.csv runs/uniter/dev_seen.csv
cp runs/both/predictions/dev_seen.csv a.csv
cp runs/text/predictions/dev_seen.csv b.csv
cp runs/both/predictions/dev_seen.csv c.csv
diptych ensemble a.csv b.csv c.csv --method mean --out average.csv
diptych evaluate runs/uniter/dev_seen.csv --root memes --split dev_seen
diptych evaluate a.csv b.csv --root memes --split dev_seen --curves curves.png
rm average.csv curves.png
diptych ensemble runs/both/predictions runs/text/predictions --method loop --root memes --out runs/blend
