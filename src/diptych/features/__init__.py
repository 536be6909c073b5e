"""Region features: the store on disk, and the file formats of other toolkits."""

from diptych.features.formats import ImportReport, export_features, import_features, read_features
from diptych.features.merged import MergedStore, open_stores
from diptych.features.named import NamedStores
from diptych.features.reader import Fault, ReadLog
from diptych.features.store import FeatureStore
from diptych.features.tsv import write_tsv
from diptych.features.writer import PartWriter, StoreWriter, join_parts, write_store

__all__ = [
    "Fault",
    "FeatureStore",
    "ImportReport",
    "MergedStore",
    "NamedStores",
    "PartWriter",
    "ReadLog",
    "StoreWriter",
    "export_features",
    "import_features",
    "join_parts",
    "open_stores",
    "read_features",
    "write_store",
    "write_tsv",
]
