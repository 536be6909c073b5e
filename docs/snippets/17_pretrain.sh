diptych train experiment=pretrain/uniter_tiny root=memes out=runs/pretrained trainer.max_epochs=2
diptych train experiment=hateful_memes/uniter_tiny root=memes out=runs/tuned weights.model=runs/pretrained trainer.max_epochs=1
