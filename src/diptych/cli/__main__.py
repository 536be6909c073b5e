"""Entry point of `python -m diptych.cli`."""

import sys

from diptych.cli import main

sys.exit(main())
