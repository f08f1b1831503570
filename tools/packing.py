"""How a wheel is made: the agents of pretrained/ go with it, so that it is of use without the checkout."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools.command.build_py import build_py


class WithAgents(build_py):
    """setuptools' own, which copies wm/ and flows/, and then the agents to wm/pretrained/."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # the checkout stays in use
            return
        target = Path(self.build_lib, "wm", "pretrained")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree("pretrained", target, ignore=shutil.ignore_patterns(".*"))
