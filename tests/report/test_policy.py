"""The policy file: what is read, written and refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from phard_hub.errors import PolicyError
from phard_hub.report.policy import Policy

ALL_OFF = Policy.model_validate(dict.fromkeys(Policy.model_fields))


@pytest.mark.parametrize("policy", [Policy(), ALL_OFF, Policy(min_accuracy=0.9, forbid_findings=("error", "note"))])
def test_written_and_read_is_equal(policy: Policy, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(policy.to_toml(), encoding="utf-8")
    assert Policy.read(path) == policy


def test_template_explains_each_rule() -> None:
    text = Policy().to_toml()
    for name, field in Policy.model_fields.items():
        assert field.description
        assert f"# {field.description}\n{name} = " in text


def test_empty_file_is_the_default_and_off_switches_off() -> None:
    assert Policy.parse("") == Policy()
    assert Policy.parse('max_accuracy_loss = "off"').max_accuracy_loss is None
    assert Policy.parse("max_accuracy_loss = 2").max_accuracy_loss == 2.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_acuracy_loss = 1", "Did you mean 'max_accuracy_loss'?"),
        ("[rules]\nx = 1", "The rules are: max_accuracy_loss"),
        ('min_accuracy = "0.5"', "min_accuracy should be a valid number, but is '0.5'"),
        ("min_accuracy = true", "min_accuracy should be a valid number"),
        ("min_accuracy = 90", "less than or equal to 1, but is 90"),
        ("min_accuracy = nan", "finite"),
        ("min_mean_distance = inf", "finite"),
        ("min_pairs_measured = 0", "greater than or equal to 1"),
        ("min_pairs_measured = 1.5", "min_pairs_measured"),
        ('forbid_findings = ["fatal"]', "'error', 'warning' or 'note', but is 'fatal'"),
        ("forbid_findings = 3", "list of severities"),
        ("\n\nmin_accuracy = \n", "line 3"),
    ],
)
def test_mistakes_are_named(text: str, expected: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Policy.parse(text, name="my.toml")
    assert "my.toml" in str(caught.value)
    assert expected in str(caught.value)
    assert caught.value.advice


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xff")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "binary"):
        with pytest.raises(PolicyError, match=r"Cannot read .*Write one with `phard policy > policy\.toml`"):
            Policy.read(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_policy_in_what_editors_and_shells_write(encoding: str, tmp_path: Path) -> None:
    """PowerShell's ``>`` writes UTF-16, and some editors write a mark before UTF-8."""
    (tmp_path / "policy.toml").write_text(Policy(min_accuracy=0.5).to_toml(), encoding=encoding)
    assert Policy.read(tmp_path / "policy.toml").min_accuracy == 0.5
