diptych study run vilio_tiny root=memes members=U,ES seeds=1 limit=20
diptych study status vilio_tiny
diptych study predict vilio_tiny root=memes members=U,ES seeds=1 limit=20 bundles=runs/study/vilio_tiny out=runs/study/again
diptych score memes/img/00001.png --text "what a day" --model runs/study/vilio_tiny
