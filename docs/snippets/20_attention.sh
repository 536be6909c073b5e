diptych explain runs/both --attention memes/img/00001.png --text "what a day" --out why.html --maps maps
