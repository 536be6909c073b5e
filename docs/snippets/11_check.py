from diptych.check import check
from diptych.datasets import fabricate

report = check(fabricate("checked_world", size=80).root)
print(report.ok)  # no errors
for finding in report.findings:
    print(finding.severity, finding.count, finding.what, finding.examples, finding.advice)
for split in report.splits:
    print(split.split, split.examples, split.labels, split.words)
