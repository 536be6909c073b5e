from diptych.datasets import HatefulMemes, fabricate

world = fabricate("small_world", size=80, seed=1)
print(world.splits)
answers = world.root / "test_seen.answers.jsonl"
test = HatefulMemes(world.root, "test_seen", answers=answers)
print(test[0].pairs[0].text, test[0].target)
