diptych world multi30k --data multi30k --size 480
diptych train experiment=multi30k/retrieval_tiny lang=de root=multi30k out=runs/german trainer.max_epochs=1
diptych retrieve runs/german --split test_2016_flickr --set descriptions=1
