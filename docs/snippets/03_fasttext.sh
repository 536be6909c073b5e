diptych fasttext memes vectors.bin --dim 50 --min-count 1
diptych train experiment=hateful_memes/text_fasttext_tiny root=memes out=runs/fasttext fasttext.path=vectors.bin trainer.max_epochs=1
