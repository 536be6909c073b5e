diptych check memes --features memes/features
