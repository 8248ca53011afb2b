"""Pervasive triggers: what they are, many at once, and the search for the smallest."""

from phard_hub.triggers.bank import Bank, Parts, Trigger
from phard_hub.triggers.generator import Autoencoder
from phard_hub.triggers.search import Measurement, SearchSettings, measure

__all__ = ["Autoencoder", "Bank", "Measurement", "Parts", "SearchSettings", "Trigger", "measure"]
