diptych train experiment=hateful_memes/concat_bert_tiny root=memes out=runs/mine trainer.max_epochs=1
cp memes/img/00039.png meme.png
