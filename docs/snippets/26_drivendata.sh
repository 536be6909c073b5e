diptych train experiment=hateful_memes/concat_fasttext_tiny root=memes out=runs/benchmark data.balance=fixed trainer.patience=3 trainer.min_delta=0.001 task.loss=softmax_ce trainer.monitor=loss fasttext.line_suffix=/n
diptych predict runs/benchmark --splits test_seen
diptych evaluate runs/benchmark/predictions/test_seen.csv --root memes --split test_seen
