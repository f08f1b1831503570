"""params.yaml with anything in it: it is right, or a sentence says what is wrong; never a traceback, never a hang."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import os
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from faults.row import Outcome, Row

SEEDS = (1, 2, 3)
EXAMPLES = 200


def lacks() -> str:
    there = importlib.util.find_spec("hypothesis")
    return "" if there else "hypothesis is not installed (pip install -e '.[faults]')"


def _leaves(tree: Any, path: tuple = ()) -> list[tuple]:
    if not isinstance(tree, dict):
        return [path]
    return [path, *(leaf for key, branch in tree.items() for leaf in _leaves(branch, (*path, key)))]


def run(each: str, folder: Path) -> Outcome:
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as some

    from faults import forks
    from faults.project import make_project

    forks.load()
    os.chdir(folder)
    make_project(folder)
    reader, file = YAML(typ="safe"), Path("params.yaml")
    whole = reader.load(file)
    values = some.recursive(
        some.none()
        | some.booleans()
        | some.integers()
        | some.floats()
        | some.text(max_size=20)
        | some.dates()
        | some.sampled_from([-1, 0, 10**30, 1e-320, "1e-4", "tiny", "../../etc/passwd", "zero", "~", "a" * 5000, "\n"]),
        lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=8), inner, max_size=3),
        max_leaves=5,
    )
    places = _leaves(whole)[1:]
    lost, said = [], set()

    @seed(int(each))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(some.lists(some.tuples(some.sampled_from(places), values, some.booleans()), min_size=1, max_size=3))
    def anything(changes: list) -> None:
        _write(_changed(whole, changes))
        code, last = _read()
        if code:
            said.add(last[:100])
        if last.startswith("raised ") or (code and not last.startswith("error: ")):
            lost.append(f"{changes!r:.200}: exit {code}: {last[:150]}")

    anything()
    return Outcome(tries=EXAMPLES, lost=lost[:5], said=sorted(said, key=len)[:2], seeds=(int(each),))


def _changed(whole: dict, changes: list) -> dict:
    """params.yaml with other values, or none, in these places."""
    params = copy.deepcopy(whole)
    for place, value, gone in changes:
        with contextlib.suppress(KeyError, TypeError, IndexError):
            parent = params
            for key in place[:-1]:
                parent = parent[key]
            if gone:
                del parent[place[-1]]
            else:
                parent[place[-1]] = value
    return params


def _write(params: dict) -> None:
    with Path("params.yaml").open("w") as out:
        try:
            YAML().dump(params, out)
        except Exception:  # no YAML: the text is what a person may have typed
            out.write(repr(params))


def _read() -> tuple[int, str]:
    """The exit code of `wm params check`, and the last line that it says."""
    from wm.cli import main

    words, errors = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(words), contextlib.redirect_stderr(errors):
            code = main(["params", "check"])
    except BaseException as error:
        return 1, f"raised {type(error).__name__}: {str(error)[:150]}"
    return code, (errors.getvalue().strip().splitlines() or [""])[-1]


def unguarded() -> None:
    """A mistake is raised as it is."""
    from wm import failures

    def tell(error: BaseException, goes_on: str = "") -> int:
        raise error

    failures.report = tell


ROW = Row(
    fault="params.yaml with values of any kind in any place, and keys taken away (hypothesis): `wm params check`",
    tries=tuple(map(str, SEEDS)),
    run=run,
    limit=600,
    lacks=lacks,
    unguarded=unguarded,
)
