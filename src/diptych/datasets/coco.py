"""Names of COCO's pictures and things, for data sets whose pictures are COCO's."""

from diptych.datasets.photographs import image_key

# What the things of the miniature world are called in data sets of photographs; all others are persons.
NAMES = {
    "car": "car", "house": "truck", "teapot": "cup", "balloon": "frisbee", "umbrella": "umbrella",
    "boat": "boat", "cloud": "airplane", "ball": "sportsball", "crate": "suitcase", "rock": "bench",
    "kite": "kite", "lamp": "clock",
}  # fmt: skip

# In the order of COCO's category ids, without blanks as VCR writes them. Compared with `categories` in
# vcr/data/datasets/vcr.py of jackroos/VL-BERT, and with COCO_CATEGORIES, which have blanks, in
# detectron2/data/datasets/builtin_meta.py of facebookresearch/detectron2.
CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "trafficlight", "firehydrant", "stopsign", "parkingmeter", "bench", "bird", "cat", "dog", "horse",
    "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie",
    "suitcase", "frisbee", "skis", "snowboard", "sportsball", "kite", "baseballbat", "baseballglove",
    "skateboard", "surfboard", "tennisracket", "bottle", "wineglass", "cup", "fork", "knife", "spoon",
    "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hotdog", "pizza", "donut",
    "cake", "chair", "couch", "pottedplant", "bed", "diningtable", "toilet", "tv", "laptop", "mouse",
    "remote", "keyboard", "cellphone", "microwave", "oven", "toaster", "sink", "refrigerator", "book",
    "clock", "vase", "scissors", "teddybear", "hairdrier", "toothbrush",
)  # fmt: skip
NUMBERS = {name: number for number, name in enumerate(CLASSES)}


def coco_class(name: str) -> int:
    """Number of a class of things, from 0; 80 for a name that is none of COCO's."""
    return NUMBERS.get("".join(name.lower().split()), len(CLASSES))


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
