from diptych.text import WordPiece, learn_vocabulary, write_vocabulary

tokens = learn_vocabulary(["a red ball on a green table", "nothing is as silly as a blue car"], 60)
write_vocabulary("small.txt", tokens)
tokenizer = WordPiece("small.txt")
print(tokenizer.encode("a red car", "a blue ball", max_tokens=16).ids)
