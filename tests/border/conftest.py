"""Shared by the tests of the border: what the tests of the Hub have."""

from tests.release.conftest import files, impatient, other_release, release

__all__ = ["files", "impatient", "other_release", "release"]
