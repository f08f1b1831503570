"""`make plots`: losses, searches and scores of the stages here on one page, drawn by `dvc plots` with no network.

DVC's own page loads its scripts from a server. The page's frame that is written here holds them instead: those that
the package vl-convert-python carries. DVC's settings of this checkout alone name it, so that `dvc plots show` and
`dvc plots diff` by hand use it too.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from flows import graph, prepare
from wm import failures
from wm.core.errors import UserError

_FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{refresh_tag}
<title>Plots</title>
<style>
body { font-family: sans-serif; margin: 1rem; display: flex; flex-wrap: wrap; align-content: flex-start; gap: 1.5rem }
body > div { max-width: 100% } .vega-embed { padding: 0 !important } .vega-embed svg { max-width: 100%; height: auto }
img { max-width: 100% }
</style>
<script>SCRIPTS</script>
<script>
const draw = vegaEmbed;
vegaEmbed = (where, what) => what.data  // what has not been run here is an empty plot
  ? draw(where, what, {renderer: "svg", actions: false}) : document.querySelector(where).remove();
</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def write_frame() -> Path:
    """Writes the frame and names it in .dvc/config.local; its path.

    Raises:
        UserError: the package with the scripts is not there, or this folder is no project.
    """
    from dvc.config import Config

    graph.check_folder()
    try:
        import vl_convert
    except ImportError as error:
        raise UserError(f"the page needs the package vl-convert-python ({error}): run `make plots`") from None
    path = Path(".dvc/tmp/plots.html").absolute()
    path.parent.mkdir(exist_ok=True)
    scripts = vl_convert.javascript_bundle()
    path.write_text(_FRAME.replace("SCRIPTS", scripts), encoding="utf-8")
    with Config(str(path.parent.parent)).edit("local") as mine:
        mine.setdefault("plots", {})["html_template"] = str(path)
    return path


def main() -> int:
    """Draws what is here; the exit code."""
    prepare()
    try:
        write_frame()
    except Exception as error:
        return failures.report(error)
    return subprocess.run([sys.executable, "-m", "dvc", "plots", "show"]).returncode


if __name__ == "__main__":
    sys.exit(main())
