"""Names of COCO's pictures and things, for data sets whose pictures are COCO's."""

from diptych.errors import ConfigError

KEYS = ("coco", "padded", "number")
# What the things of the miniature world are called in data sets of photographs; all others are persons.
NAMES = {
    "car": "car", "house": "truck", "teapot": "cup", "balloon": "frisbee", "umbrella": "umbrella",
    "boat": "boat", "cloud": "airplane", "ball": "sportsball", "crate": "suitcase", "rock": "bench",
    "kite": "kite", "lamp": "clock",
}  # fmt: skip


def require_key(form: str) -> None:
    """Refuse an unknown form of image keys.

    Raises:
        ConfigError: lists the forms.
    """
    if form not in KEYS:
        raise ConfigError(
            f"data.image_key is {form!r}; expected one of {KEYS}, as in COCO_train2014_000000458752, "
            "000000458752 and 458752."
        )


def coco_key(number: int, subset: str, form: str) -> str:
    """Key of a picture in feature stores.

    Args:
        number: id of the picture.
        subset: `train2014`, `val2014` or `test2015`.
        form: `coco` is the name of the file without suffix, as in LXMERT's features; `number` the id, as in
            VL-BERT's and Volta's; `padded` the id with twelve digits.
    """
    match form:
        case "number":
            return str(number)
        case "padded":
            return f"{number:012d}"
    return f"COCO_{subset}_{number:012d}"


def coco_number(key: str) -> int:
    """Id of a picture, from a key of any form."""
    return int(key.rpartition("_")[2])
