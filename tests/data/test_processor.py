from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.data import Collate, DetectorTransform, Processor, Sources, require_sources
from diptych.data.collate import pad
from diptych.errors import ConfigError, FormatError, MissingFeatures
from diptych.text import CachedTokenizer, WordPiece, write_vocabulary
from diptych.types import Example, FeatureMeta, Mention, Pair, Regions, Tokens

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "boat", "sun")

BOTH = frozenset({"text", "regions"})


class Shelf(dict):  # a region source
    def __init__(self, regions: dict[str, Regions], classes: tuple[str, ...] = ()) -> None:
        super().__init__(regions)
        self.meta = FeatureMeta(feature_dim=3, classes=classes)

    def count(self, key: str) -> int:
        return len(self[key])


def regions(count: int, *, size: tuple[int, int] = (200, 100)) -> Regions:
    boxes = np.tile(np.array([20, 10, 100, 100], np.float32), (count, 1))
    return Regions(
        features=np.arange(count * 3, dtype=np.float32).reshape(count, 3),
        boxes=boxes,
        size=size,
        labels=np.arange(count) % 2,
        probabilities=np.full((count, 2), 0.5, np.float32),
    )


@pytest.fixture
def text(tmp_path: Path) -> WordPiece:
    write_vocabulary(tmp_path / "vocab.txt", WORDS)
    return WordPiece(tmp_path / "vocab.txt")


def test_row_holds_tokens_and_normalized_boxes(text: WordPiece) -> None:
    row = Processor(text=text, regions=True)(
        Pair(image="k", text="a red boat"), Sources(regions=Shelf({"k": regions(2)}))
    )
    assert [WORDS[index] for index in row.tokens.ids] == ["[CLS]", "a", "red", "boat", "[SEP]"]
    assert row.boxes == pytest.approx(np.array([[0.1, 0.1, 0.5, 1.0]] * 2))


def test_swapped_box_scale_divides_x_by_the_height(text: WordPiece) -> None:
    processor = Processor(text=text, regions=True, box_scale="swapped")
    row = processor(Pair(image="k", text="a"), Sources(regions=Shelf({"k": regions(1)})))
    assert row.boxes == pytest.approx(np.array([[0.2, 0.05, 1.0, 0.5]]))


@pytest.mark.parametrize(
    ("size", "resized"),
    [((200, 100), (1000, 500)), ((640, 480), (800, 600)), ((3000, 2000), (900, 600)), ((90, 90), (600, 600))],
)
def test_clipped_boxes_end_at_the_last_pixel_of_the_resized_picture(text, size, resized) -> None:
    width, height = size
    boxes = np.array([[0, 0, width, height], [1, 2, width - 20, height - 20]], np.float32)
    given = Regions(features=np.zeros((2, 3), np.float32), boxes=boxes, size=size)
    processor = Processor(text=text, regions=True, clip_boxes=[600, 1000])
    row = processor(Pair(image="k", text="a"), Sources(regions=Shelf({"k": given})))
    assert row.resized == resized
    last = [1 - 1 / side for side in resized]
    assert row.boxes[0] == pytest.approx([0, 0, *last])
    assert row.boxes[1] == pytest.approx(boxes[1] / [width, height, width, height])
    assert pad([row, row]).regions.resized.tolist() == [list(resized)] * 2


def test_boxes_are_whole_without_clipping(text: WordPiece) -> None:
    row = Processor(text=text, regions=True)(
        Pair(image="k", text="a"), Sources(regions=Shelf({"k": regions(1)}))
    )
    assert row.boxes[0, 3] == 1
    assert pad([row]).regions.resized is None


@pytest.mark.parametrize("sentence", ["a red boat", "a red boat?", "a red boat ??", "a red boat ? "])
def test_a_text_ends_once_in_what_ends_all_texts(text: WordPiece, sentence: str) -> None:
    processor = Processor(text=text, text_end="sun [MASK]")
    row = processor(Pair(image=None, text=sentence), Sources())
    words = [WORDS[index] for index in row.tokens.ids]
    assert words == ["[CLS]", "a", "red", "boat", "sun", "[MASK]", "[SEP]"]
    assert processor.length(Example(id="1", pairs=(Pair(image=None, text=sentence),))) == len(words)


@pytest.mark.parametrize(
    "settings",
    [
        {"clip_boxes": [600]},
        {"clip_boxes": [0, 1000]},
        {"clip_boxes": [600, 1000], "box_scale": "swapped"},
    ],
)
def test_settings_of_clipping_are_checked(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"processor\.clip_boxes is"):
        Processor(**settings)


def test_only_the_best_regions_are_kept(text: WordPiece) -> None:
    source = Shelf({"k": regions(9)})
    processor = Processor(text=text, regions=True, max_regions=4)
    row = processor(Pair(image="k", text="a"), Sources(regions=source))
    assert np.array_equal(row.regions.features, source["k"].features[:4])
    assert processor.length(Example(id="1", pairs=(Pair(image="k", text="a"),)), source) == 3 + 4


def test_two_images_share_a_row(text: WordPiece) -> None:
    source = Shelf({"k": regions(2), "l": regions(3, size=(100, 100))})
    row = Processor(text=text, regions=True)(Pair(image=("k", "l"), text="a"), Sources(regions=source))
    assert row.image_index.tolist() == [0, 0, 1, 1, 1]
    assert row.regions.size == (200, 100)
    assert row.boxes[2] == pytest.approx(np.array([0.2, 0.1, 1.0, 1.0]))


def test_tags_become_the_second_segment(text: WordPiece) -> None:
    source = Shelf({"k": regions(3)}, classes=("sun", "boat"))
    row = Processor(text=text, regions=True, tags=True)(Pair(image="k", text="a"), Sources(regions=source))
    words = [WORDS[index] for index in row.tokens.ids]
    assert words == ["[CLS]", "a", "[SEP]", "sun", "boat", "sun", "[SEP]"]


def test_tokens_name_the_regions_that_their_characters_mention(text: WordPiece) -> None:
    pair = Pair(
        image="k",
        text="a red boat",
        text_b="sun a",
        mentions=(
            Mention(start=2, stop=10, region=1),
            Mention(start=0, stop=3, region=0, segment=1),
            Mention(start=4, stop=5, region=2, segment=1),
        ),
    )
    sources = Sources(regions=Shelf({"k": regions(3)}, classes=("sun", "boat")))
    # [CLS] a red boat [SEP] sun a [SEP]
    assert Processor(text=text, regions=True)(pair, sources).mentions.tolist() == [-1, -1, 1, 1, -1, 0, 2, -1]
    fewer = Processor(text=text, regions=True, max_regions=2)
    assert fewer(pair, sources).mentions.tolist() == [-1, -1, 1, 1, -1, 0, -1, -1]
    tagged = Processor(text=text, regions=True, max_regions=2, tags=True)
    assert tagged(pair, sources).mentions.tolist() == [-1, -1, 1, 1, -1, -1, -1, -1]
    assert Processor(text=text, regions=True)(Pair(image="k", text="a"), sources).mentions is None


def test_a_mask_can_stand_where_the_answer_will(text: WordPiece) -> None:
    processor = Processor(text=text, text_b="[MASK]")
    for second, expected in (
        (None, ["a", "[SEP]", "[MASK]", "[SEP]"]),
        ("sun", ["a", "[SEP]", "sun", "[SEP]"]),
    ):
        pair = Pair(image=None, text="a", text_b=second)
        row = processor(pair, Sources())
        assert [WORDS[index] for index in row.tokens.ids] == ["[CLS]", *expected]
        assert processor.length(Example(id="1", pairs=(pair,))) == 5


def test_a_text_without_image_has_no_regions(text: WordPiece) -> None:
    row = Processor(text=text, regions=True)(Pair(image=None, text="a"), Sources(regions=Shelf({})))
    assert len(row.regions) == 0
    assert row.boxes.shape == (0, 4)


def test_images_without_regions_are_an_error_or_empty(text: WordPiece) -> None:
    sources, example = Sources(regions=Shelf({})), Example(id="1", pairs=(Pair(image="k", text="a"),))
    with pytest.raises(MissingFeatures, match=r"^1 image.*: k"):
        require_sources(
            frozenset({"text", "regions"}), Processor(text=text, regions=True), sources, [example]
        )
    tolerant = Processor(text=text, regions=True, missing="none")
    require_sources(BOTH, tolerant, sources, [example])
    assert len(tolerant(example.pairs[0], sources).regions) == 0


def test_pixels_come_from_the_picture_file(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (30, 20), (255, 0, 0)).save(tmp_path / "k.png")
    row = Processor(image_size=8)(Pair(image="k", text=""), Sources(images={"k": tmp_path / "k.png"}))
    red = (torch.tensor([1.0, 0.0, 0.0]) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    assert torch.allclose(row.pixels, red[:, None, None].expand(3, 8, 8), atol=1e-5)


def test_what_a_model_needs_must_be_provided(text: WordPiece) -> None:
    with pytest.raises(ConfigError, match=r"\['pixels', 'text'\].*\['text'\].*\['pixels'\]"):
        require_sources(frozenset({"text", "pixels"}), Processor(text=text), Sources())
    with pytest.raises(ConfigError, match=r"\['regions'\].*\['text'\]"):
        require_sources(frozenset({"text"}), Processor(text=text, regions=True), Sources())
    with pytest.raises(ConfigError, match=r"features=FOLDER"):
        require_sources(BOTH, Processor(text=text, regions=True), Sources())
    shelf = Sources(regions=Shelf({}))
    with pytest.raises(ConfigError, match=r"processor\.tags"):
        require_sources(BOTH, Processor(text=text, regions=True, tags=True), shelf)
    with pytest.raises(ConfigError, match=r"root=FOLDER"):
        require_sources(frozenset({"pixels"}), Processor(image_size=8), Sources())
    with pytest.raises(ConfigError, match="'maybe'"):
        Processor(missing="maybe")


def end_to_end(text: WordPiece, tmp_path: Path, **settings: object) -> tuple[Processor, Sources]:
    """A picture of 200 x 100, which becomes 40 x 20, and two regions with features."""
    Image.new("RGB", (200, 100), "red").save(tmp_path / "k.png")
    prepare = DetectorTransform(least=20, most=40)
    sources = Sources(regions=Shelf({"k": regions(2)}), images={"k": tmp_path / "k.png"})
    return Processor(text=text, regions=True, prepare=prepare, **settings), sources


def test_end_to_end_rows_have_pixels_and_boxes_alone(text: WordPiece, tmp_path: Path) -> None:
    processor, sources = end_to_end(text, tmp_path)
    assert processor.provides == {"text", "regions", "pixels"}
    row = processor(Pair(image="k", text="a"), sources)
    assert row.pixels.shape == (3, 20, 40)
    assert row.regions.features.shape == (2, 0)
    assert row.regions.size == (200, 100)
    assert row.regions.labels.tolist() == [0, 1]
    # a box ends at the last pixel of the resized picture, 19 of 20
    assert row.boxes == pytest.approx(np.array([[0.1, 0.1, 0.5, 0.95]] * 2))


def test_the_whole_picture_comes_first_and_mentions_move(text: WordPiece, tmp_path: Path) -> None:
    processor, sources = end_to_end(text, tmp_path, whole_image=True)
    pair = Pair(
        image="k",
        text="a boat",
        mentions=(Mention(start=2, stop=6, region=1), Mention(start=0, stop=1, region=2)),
    )
    row = processor(pair, sources)
    assert row.boxes[0] == pytest.approx([0, 0, 1 - 1 / 40, 1 - 1 / 20])
    assert len(row.boxes) == len(row.regions) == 3
    assert row.regions.labels.tolist() == [-1, 0, 1]
    assert row.regions.probabilities is not None
    assert row.regions.probabilities[:, 0].tolist() == [0, 0.5, 0.5]
    assert row.mentions.tolist() == [-1, -1, 2, -1]


def test_tags_survive_the_features(text: WordPiece, tmp_path: Path) -> None:
    processor, sources = end_to_end(text, tmp_path, tags=True)
    shelf = Shelf({"k": regions(2)}, classes=("sun", "boat"))
    row = processor(Pair(image="k", text="a"), sources._replace(regions=shelf))
    assert [WORDS[index] for index in row.tokens.ids][-3:] == ["sun", "boat", "[SEP]"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid": [4, 4]}, r"processor\.grid.*processor\.prepare"),
        ({"whole_image": True}, r"processor\.whole_image.*processor\.prepare"),
        ({"prepare": DetectorTransform()}, "regions=true"),
        ({"prepare": DetectorTransform(), "regions": True, "image_size": 8}, "image_size"),
        ({"prepare": DetectorTransform(), "regions": True, "box_scale": "swapped"}, "box_scale"),
        ({"prepare": DetectorTransform(), "regions": True, "clip_boxes": [600, 1000]}, "clip_boxes"),
        ({"prepare": DetectorTransform(), "regions": True, "grid": [4]}, r"processor\.grid is \[4\]"),
        ({"prepare": DetectorTransform(), "regions": True, "grid": [0, 4]}, r"processor\.grid is \[0, 4\]"),
    ],
)
def test_settings_of_end_to_end_models_go_together(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Processor(**settings)


def test_a_picture_too_thin_to_resize_is_named(text: WordPiece, tmp_path: Path) -> None:
    processor, sources = end_to_end(text, tmp_path)
    Image.new("RGB", (900, 2)).save(tmp_path / "k.png")
    with pytest.raises(FormatError, match=r"k\.png: .*900 x 2"):
        processor(Pair(image="k", text="a"), sources)


class Bytes:
    """A tokenizer that is no WordPiece: 0 to 255 are the bytes of the text."""

    pad_id, mask_id, special_ids = 256, 257, (256, 257, 258)
    vocab_size, fingerprint = 259, "bytes"
    tokens = (*(f"<{number}>" for number in range(256)), "<pad>", "<mask>", "<end>")

    def encode(self, text: str, text_b: str | None = None, *, max_tokens: int) -> Tokens:
        ids = [*f"{text} {text_b or ''}".encode()[: max_tokens - 1], 258]
        places = tuple((number, number + 1) for number in range(len(ids)))
        return Tokens(ids=tuple(ids), segments=(0,) * len(ids), offsets=places)


def test_any_tokenizer_will_do() -> None:
    examples = [Example(id=text, pairs=(Pair(image=None, text=text),)) for text in ("é", "one two three")]
    batch = Collate(Processor(text=Bytes(), max_tokens=8))(examples)
    assert batch.inputs.text is not None
    assert batch.inputs.text.ids.tolist() == [
        [0xC3, 0xA9, 32, 258, 256, 256, 256, 256],
        [*b"one two", 258],
    ]
    assert Collate(Processor(text=CachedTokenizer(Bytes(), {})))(examples).inputs.text is not None


def test_further_texts_have_tokens_of_their_own(text: WordPiece) -> None:
    pairs = [
        Pair(image=None, text="a", more_texts=("red boat", "sun")),
        Pair(image=None, text="sun", more_texts=("a", "a")),
    ]
    examples = [Example(id=str(number), pairs=(pair,)) for number, pair in enumerate(pairs)]
    inputs = Collate(Processor(text=text))(examples).inputs
    first, second = inputs.more_texts
    assert first.ids.tolist() == [[2, 6, 7, 3], [2, 5, 3, 0]]
    assert first.mask.sum(1).tolist() == [4, 3]
    assert second.ids.tolist() == [[2, 8, 3], [2, 5, 3]]
    with pytest.raises(FormatError, match=r"\b0 to 2 more_texts"):
        Collate(Processor(text=text))([*examples, Example(id="x", pairs=(Pair(image=None, text="a"),))])
