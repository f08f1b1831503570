"""The first stages of `smoke` have the bits that docs/bits.md records for this kind of processor; others may warn.

The two that every other one is a function of: frames, and what convolutions make of them in training.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

from wm.records import dvcfiles

ROOT = Path(__file__).parent.parent
STAGES = ("collect", "train_vae")


def recorded() -> dict[str, list[str]]:
    """Kind of processor -> the hashes of the newest row of `smoke`: those of one commit, the newest of the table."""
    page = (ROOT / "docs/bits.md").read_text().partition("## What the default gives")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    smokes = [row for row in rows if row[2:3] == ["smoke"]]
    return {row[0]: row[3:] for row in smokes if row[1] == smokes[-1][1]}


def processor() -> str:
    """As the table names it."""
    about = Path("/proc/cpuinfo").read_text()
    name, family, model = (
        re.search(rf"^{key}\s*: (.+)$", about, re.MULTILINE)[1] for key in ("model name", "cpu family", "model")
    )
    name = re.sub(r"\(R\)| \d.*| Processor.*", "", name)
    return f"{name}, family {family} model {model} ({'AVX-512' if ' avx512f ' in about else 'AVX2'})"


def test_the_first_stages_of_smoke_have_the_recorded_bits(tmp_path):
    known, mine = recorded(), processor()
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "runs/zero", tmp_path / "runs/zero")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "WM_TRACKING": "off"}
    expected = known.get(mine) or next(iter(known.values()))
    for stage, digest in zip(STAGES, expected, strict=False):
        subprocess.run([sys.executable, "-m", "wm", stage, "smoke"], cwd=tmp_path, env=env, check=True)
        found = dvcfiles.md5(tmp_path / "runs/smoke" / stage)[:8]
        if found != digest:
            told = f"{stage} of smoke is {found} on {mine}, and {digest} in docs/bits.md"
            assert mine not in known, f"{told}: if its output was meant to change, add a row of today's commit"
            warnings.warn(told, stacklevel=1)
            return
