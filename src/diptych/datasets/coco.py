"""Names of COCO's pictures and things, for data sets whose pictures are COCO's."""

from diptych.datasets.photographs import image_key

# What the things of the miniature world are called in data sets of photographs; all others are persons.
NAMES = {
    "car": "car", "house": "truck", "teapot": "cup", "balloon": "frisbee", "umbrella": "umbrella",
    "boat": "boat", "cloud": "airplane", "ball": "sportsball", "crate": "suitcase", "rock": "bench",
    "kite": "kite", "lamp": "clock",
}  # fmt: skip


def coco_key(number: int, subset: str, kind: str) -> str:
    """Key of a picture in feature stores.

    Args:
        number: id of the picture.
        subset: `train2014`, `val2014` or `test2015`.
        kind: `stem` is the name of the file, as in LXMERT's features, `number` the id, as in VL-BERT's and
            Volta's; see `photographs.image_key`.
    """
    name = f"COCO_{subset}_{number:012d}"
    return image_key(name, kind, where=name)


def coco_number(key: str) -> int:
    """Id of a picture, from a key of any form."""
    # `COCO_val2014_000000000042`, `000000000042` and `42` all give 42.
    return int(key.rpartition("_")[2])
