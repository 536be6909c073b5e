"""The official accuracy of VQA v2, equal to `vqaEval.py` of GT-Vision-Lab/VQA including its quirks."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

from diptych.metrics.answers import without_punctuation

NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {word: str(number) for number, word in enumerate(NUMBERS)} | {"zero": "0"}
ARTICLES = ("a", "an", "the")
# Contracted forms by their ending.
ENDINGS = {
    "n't": "ai are ca could did does do had has have is might must need ought sha should was were wo would",
    "n't've": "could had might should would",
    "'d": "he how it someone something there they where who you",
    "'d've": "he it she somebody someone something there they we who you",
    "'ll": "how it somebody someone something they what who why y'all you",
    "'re": "there they what why you",
    "'s": "he how somebody someone that there what when where who why",
    "'ve": "could might must not should they we what where who would you",
    "": "'twas 'ow's'at ma'am o'clock y'all y'all'd've",
}
FORMS = [f"{word}{ending}" for ending, words in ENDINGS.items() for word in words.split()]
# The script knows each form with one apostrophe left out. `somebody'd` loses its own: a slip of the script.
CONTRACTIONS = {
    form[: mark.start()] + form[mark.end() :]: form for form in FORMS for mark in re.finditer("'", form)
} | {"somebody'd": "somebodyd"}


def normalize_vqa(answer: str) -> str:
    """Spell an answer as the script compares it: punctuation, numbers, articles, contractions."""
    words = [DIGITS.get(word, word) for word in without_punctuation(answer).lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def comparable(answer: str, given: Sequence[str]) -> str:
    """Spell an answer as the script compares it with the answers that people gave."""
    return _speller(given)(answer)


def _speller(given: Sequence[str]) -> Callable[[str], str]:
    """The script compares without normalizing where all people gave the same answer."""
    return _bare if len(set(map(_bare, given))) <= 1 else _normalized


@lru_cache(maxsize=1 << 16)  # the millions of answers of a training split are mostly the same ones
def _bare(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=1 << 16)
def _normalized(answer: str) -> str:
    return normalize_vqa(_bare(answer))


def vqa_score(answer: str, given: Sequence[str]) -> float:
    """Official accuracy of one answer in [0, 1].

    Each person is left out once; the rest must contain the answer three times for a full point.
    """
    spell = _speller(given)
    predicted, people = spell(answer), [*map(spell, given)]
    count = people.count(predicted)
    # Summed in the order of the people, as the script does, so that rounding is equal, too.
    # Example: 3 of 10 said it. Left out one of them, 2/3 remain; left out another, 1: (3 * 2/3 + 7) / 10 =
    # 0.9.
    return sum(min(1.0, (count - (one == predicted)) / 3) for one in people) / len(people)


def soft_scores(given: Sequence[str]) -> dict[str, float]:
    """Official accuracy of each answer that people gave, the most frequent first.

    Of ten people: 0.3, 0.6, 0.9 for one, two, three of them, and 1 from four on.
    """
    counts = Counter(map(_speller(given), given))
    n = len(given)
    return {
        # Rounded, so that equal scores are equal numbers in files and caches.
        answer: round((count * min(1.0, (count - 1) / 3) + (n - count) * min(1.0, count / 3)) / n, 4)
        for answer, count in counts.most_common()
    }
