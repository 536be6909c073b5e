"""The page of a policy: what it does and promises, how good the probabilities are, and whose it is."""

from pathlib import Path

from diptych.calibrate import Calibration, policy_tables
from diptych.report.calibration import reliability_curves
from diptych.report.markup import drawn_image, paragraph, section, table, write_page

SAID = "reliability: shares against probabilities, as scored and calibrated, with the thresholds"


def policy_page(calibration: Calibration, path: Path | str) -> None:
    """Write a policy and what was measured about it as one HTML file without scripts."""
    policy = calibration.policy
    parts = [
        paragraph(part)
        if isinstance(part, str)
        # Numbers are the last columns.
        else table(part.columns, part.rows, numbers=range(len(part.columns))[-part.numbers :])
        for part in policy_tables(calibration)
    ]
    facts = [
        ("model", policy.model or "unknown"),
        ("labeled examples", f"{policy.dev['examples']:,} of {policy.dev['split']}"),
        ("their checksum", policy.dev["checksum"] or "unknown"),
        ("made on", policy.made),
        ("made by", f"diptych {policy.version}"),
    ]
    body = [
        section("Policy", *parts),
        section("Reliability", drawn_image(lambda place: reliability_curves(calibration, place), SAID)),
        section("Whose it is", table(("what", "value"), facts)),
    ]
    title = f"Policy for {', '.join(policy.labels)}"
    note = "allow below, review between, block above; this file needs no network"
    write_page(path, "".join(body), kind="policy", title=title[:100], note=note)
