"""Classifiers: the contract, and how audited files become one."""
