# 1. make a data set
diptych world memes --size 2000 --seed 0
diptych check memes
# 2. train
diptych train experiment=hateful_memes/uniter_tiny root=memes out=runs/both
diptych train experiment=hateful_memes/text_bert_tiny root=memes out=runs/text trainer.max_epochs=2
# 3. predict
diptych predict runs/both --splits dev_seen,test_seen
diptych predict runs/text --splits dev_seen,test_seen
# 4. evaluate
diptych evaluate runs/both/predictions/test_seen.csv runs/text/predictions/test_seen.csv --root memes --split test_seen
# 5. train another seed, and average both
diptych train experiment=hateful_memes/uniter_tiny root=memes out=runs/both-2 seed=2
diptych predict runs/both-2 --splits test_seen
diptych ensemble runs/both/predictions/test_seen.npz runs/both-2/predictions/test_seen.npz --out runs/average/test_seen.csv
# 6. copy an experiment to edit it
diptych cp hateful_memes/uniter_tiny conf
