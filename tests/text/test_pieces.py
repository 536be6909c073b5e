import pytest

from diptych.text import WordPiece, detokenize, join_pieces, learn_vocabulary, write_vocabulary

SENTENCES = [
    "Ein Mann, der eine rote Jacke trägt, steht (allein) am See.",
    'Eine Frau mit T-Shirt fragt: "Wo ist der Hund?"',
    "Er sagt „Guten Tag“ und geht!",
    "Um 12:30 kommen 1.000 Leute; 5,5 bleiben.",
    "L'homme dit qu'il n'y a rien.",
    "It's a dog's life... isn't it?",
]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_tokens_become_the_sentence_again(sentence, tmp_path):
    write_vocabulary(tmp_path / "v.txt", learn_vocabulary(SENTENCES, 200, lowercase=False))
    tokenizer = WordPiece(tmp_path / "v.txt", lowercase=False)
    tokens = tokenizer.tokens
    pieces = [tokens[one] for one in tokenizer.encode(sentence, max_tokens=99).ids[1:-1]]
    assert detokenize(join_pieces(pieces)) == sentence


def test_pieces_are_joined_as_mm_bert_does():
    assert join_pieces(["ein", "Hund", "##e", "##n", "."]) == "ein Hunden ."
    assert join_pieces(["##en", "a"]) == "en a"
    assert join_pieces([]) == ""
