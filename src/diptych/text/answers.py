"""The spelling of answers in LXMERT's pre-training."""

SPELLINGS = {
    **{"one": "1", "two": "2", "three": "3", "four": "4", "five": "5"},
    **{"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10", "grey": "gray"},
}


def normalize_answer(answer: str) -> str:
    """As LXMERT spells its pre-training answers: no final period, no article, digits up to ten."""
    answer = answer.lower()
    if answer.endswith("."):
        answer = answer[:-1].strip()
    for article in ("a ", "an ", "the "):
        if answer.startswith(article):
            answer = answer.removeprefix(article).strip()
    return SPELLINGS.get(answer, answer)
