"""The report and what follows from it: record, policy, gate. Needs no torch; the views are in `report.views`."""

from phard_hub.report.distances import ClassDistances, PairDistance, Rate, grey_levels
from phard_hub.report.findings import MEANINGS, AuditRecord
from phard_hub.report.gate import Verdict, gate
from phard_hub.report.policy import Policy
from phard_hub.report.record import Evaluation, Hardening, Phase, Report, State
from phard_hub.report.views.formats import audit_headline, headline, summary_rows
from phard_hub.report.wording import OUTCOMES, pair_name, printable

__all__ = [
    "MEANINGS",
    "OUTCOMES",
    "AuditRecord",
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
    "audit_headline",
    "gate",
    "grey_levels",
    "headline",
    "pair_name",
    "printable",
    "summary_rows",
]
