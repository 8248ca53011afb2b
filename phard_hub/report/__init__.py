"""The report and what follows from it: record, policy, gate. Needs no torch; the views are in `report.views`."""

from phard_hub.report.distances import ClassDistances, PairDistance, Rate
from phard_hub.report.gate import Verdict, gate
from phard_hub.report.policy import Policy
from phard_hub.report.record import Evaluation, Hardening, Phase, Report, State

__all__ = [
    "ClassDistances",
    "Evaluation",
    "Hardening",
    "PairDistance",
    "Phase",
    "Policy",
    "Rate",
    "Report",
    "State",
    "Verdict",
    "gate",
]
