"""Decisions from scores: calibrated probabilities, thresholds that keep promises, bands for people.

    calibration = calibrate(predictions, gold, dev=...)       fit a policy on labeled examples
    policy.decide(scores)                                     allow, review or block
    fit_cascade(members, truth, ...).cascade                  costly members only where cheap ones are unsure
    drift(reference, live, policy=policy)                     has anything moved since?

The policy is a small file of its own. It names the model it was made for, and refuses any other.
"""

from diptych.calibrate.bands import Costs, capacity_band
from diptych.calibrate.cascade import (
    UNITS,
    Cascade,
    MemberNode,
    Routed,
    Stage,
    Unit,
    read_members_file,
    write_routed,
)
from diptych.calibrate.cascade_fit import Member, fit_cascade
from diptych.calibrate.cascade_report import CascadeReport, Measured, measured, shares_of
from diptych.calibrate.drift import Drift, Shift, drift, shifted_prevalence
from diptych.calibrate.fit import Calibration, Capacity, LabelReport, calibrate
from diptych.calibrate.maps import METHODS, Map, choose_method, cross_fitted, fit_map
from diptych.calibrate.policy import ACTIONS, Decisions, Policy, Rule, write_decisions
from diptych.calibrate.promises import Promise, promise_above, promise_below
from diptych.calibrate.settings import Settings
from diptych.calibrate.slices import Slice, largest_gap, read_groups
from diptych.calibrate.tables import Shown, policy_tables

__all__ = [
    "ACTIONS",
    "METHODS",
    "UNITS",
    "Calibration",
    "Capacity",
    "Cascade",
    "CascadeReport",
    "Costs",
    "Decisions",
    "Drift",
    "LabelReport",
    "Map",
    "Measured",
    "Member",
    "MemberNode",
    "Policy",
    "Promise",
    "Routed",
    "Rule",
    "Settings",
    "Shift",
    "Shown",
    "Slice",
    "Stage",
    "Unit",
    "calibrate",
    "capacity_band",
    "choose_method",
    "cross_fitted",
    "drift",
    "fit_cascade",
    "fit_map",
    "largest_gap",
    "measured",
    "policy_tables",
    "promise_above",
    "promise_below",
    "read_groups",
    "read_members_file",
    "shares_of",
    "shifted_prevalence",
    "write_decisions",
    "write_routed",
]
