diptych explain runs/both memes/img/00001.png --text "what a day" --out decision.html --json decision.json
