"""A short version of the suite of faults (`make faults`): its own machinery, and one stage killed at its writes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from faults import __main__ as suite
from faults.row import Outcome, Row
from tests.flow_project import ROOT


def run(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "faults", *words]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=600)


@pytest.mark.parametrize("each", ["spool", "encode"])
def test_a_kill_at_any_write_loses_nothing(each):
    done = run("kill_at_write", "--short", "--only", each)
    assert done.returncode == 0 and "lost nothing" in done.stdout, done.stdout + done.stderr


def test_without_the_protection_the_row_loses():
    done = run("kill_at_write", "--short", "--only", "encode", "--unguarded")
    assert done.returncode == 1 and "neither the earlier output nor the new one is there" in done.stdout, done.stdout


def test_a_suite_that_was_stopped_goes_on_and_its_table_keeps_other_rows(tmp_path, monkeypatch):
    table, made = tmp_path / "faults.md", []
    table.write_text(
        f"# Faults\n\n{suite.HEAD}\n|---|---|---:|---|---:|---|---|\n| `memory` | an older line | | | | | |\n"
    )
    monkeypatch.setattr(suite, "TABLE", table)
    monkeypatch.setattr(suite, "FOLDER", tmp_path / "journals")
    monkeypatch.setattr(suite, "ROWS", ("disk_full", "memory"))

    def in_a_process(name, each, limit, unguarded):
        made.append(each)
        if each == "b" and made.count("b") == 1:
            raise KeyboardInterrupt
        return {
            "tries": 2,
            "lost": ["a <b>|</b>"] if each == "b" else [],
            "said": ["error: so"],
            "seeds": [int(each == "b")],
        }

    monkeypatch.setattr(suite, "_in_a_process", in_a_process)
    row = Row(fault="a fault", tries=("a", "b"), run=lambda *_: Outcome(), limit=1)
    with pytest.raises(KeyboardInterrupt):
        suite._run("disk_full", row, None, False, True, False)
    assert "| 2 (1 of 2 parts) |" in table.read_text()
    assert suite._run("disk_full", row, None, False, True, False) == 1 and made == ["a", "b", "b"]
    lines = table.read_text().splitlines()
    assert lines[-2] == "| `disk_full` | a fault | 4 | 0 to 1 | 0.0 | a &lt;b>\\|&lt;/b> | error: so |"
    assert lines[-1] == "| `memory` | an older line | | | | | |"
    assert [json.loads(line)["try"] for line in (tmp_path / "journals/disk_full.jsonl").read_text().splitlines()] == [
        "a",
        "b",
    ]
