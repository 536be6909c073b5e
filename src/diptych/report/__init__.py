"""Pictures of results, drawn by matplotlib without a display."""

from diptych.errors import ConfigError

try:
    import matplotlib  # noqa: F401
except Exception as error:
    raise ConfigError('figures need matplotlib; install it with: pip install "diptych[report]"') from error

from diptych.report.figures import curves, history
from diptych.report.memes import MemeItem, meme_page
from diptych.report.regions import region_page

__all__ = ["MemeItem", "curves", "history", "meme_page", "region_page"]
