diptych extract memes/img regions --detector tiny --boxes 9,4:20 --show 4
diptych extract memes/img regions --detector grid --backbone resnet_tiny --size 96 --grid 3x3
