from pathlib import Path

from diptych.audit import audit
from diptych.datasets import find_data

found = audit(Path("memes"), find_data(Path("memes")), samples=200)
for finding in found.findings:
    print(finding.severity, finding.what)
