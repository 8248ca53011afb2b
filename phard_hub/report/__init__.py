"""The report and its views: record, policy, gate, formats, plots. Needs no torch."""
