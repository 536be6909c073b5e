diptych train experiment=hateful_memes/end_to_end_tiny root=memes out=runs/pixels trainer.max_epochs=1
diptych predict runs/pixels --root memes --splits dev_seen
diptych predict runs/pixels --image memes/img/00001.png --text "what a day"
