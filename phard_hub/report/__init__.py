"""The report and what follows from it: record, policy, gate. Needs no torch; the views are in `report.views`."""

from phard_hub.report.distances import GREY_LEVELS, ClassDistances, PairDistance, Rate, grey_levels
from phard_hub.report.findings import MEANINGS, AuditRecord
from phard_hub.report.gate import Verdict, gate, policy_for
from phard_hub.report.outliers import Outlier, outliers
from phard_hub.report.policy import POLICIES, Policy
from phard_hub.report.record import Evaluation, Hardening, Phase, Report, State
from phard_hub.report.views.formats import audit_headline, headline, summary_rows
from phard_hub.report.wording import OUTCOMES, outlier_words, pair_name, printable

__all__ = [
    "GREY_LEVELS",
    "MEANINGS",
    "OUTCOMES",
    "POLICIES",
    "AuditRecord",
    "ClassDistances",
    "Evaluation",
    "Hardening",
    "Outlier",
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
    "outlier_words",
    "outliers",
    "pair_name",
    "policy_for",
    "printable",
    "summary_rows",
]
