diptych clean memes memes-clean
