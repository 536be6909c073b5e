"""Region features: the store on disk, and the files in which others keep theirs."""

from diptych.features.store import FeatureStore
from diptych.features.transfer import ImportReport, export_tsv, import_tsv
from diptych.features.tsv import Fault, TsvLog, read_tsv, write_tsv
from diptych.features.writer import StoreWriter, write_store

__all__ = [
    "Fault",
    "FeatureStore",
    "ImportReport",
    "StoreWriter",
    "TsvLog",
    "export_tsv",
    "import_tsv",
    "read_tsv",
    "write_store",
    "write_tsv",
]
