"""What `make docs` does besides: pages that lie outside docs/ are part of the site, and links lead to them.

A page's links are written so that they work where the repository is browsed. In the site the content of docs/ lies at
the top, beside the other pages, so each link is made anew from where both ends lie.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
    "CITATION.cff",
    "params.yaml",
    "examples/*.py",
    "results/*.md",
    "results/*.png",
    "results/*/figures/*.png",
    "trials/*",
    "wm/stages/__init__.py",
)
DEMOS = {"car_racing.html": "CarRacing", "take_cover.html": "Doom's Take Cover"}
"""Pages of dreams in build/demos, where `wm agent demo` wrote some: a release has them."""
MARK = "<!-- demos -->"
LINK = re.compile(r"(\]\()([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what lies outside docs/."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    for name in _demos():
        files.append(File.generated(config, f"demos/{name}", abs_src_path=str(ROOT / "build" / "demos" / name)))
    return files


def _demos() -> list[str]:
    return [name for name in DEMOS if (ROOT / "build" / "demos" / name).is_file()]


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Its links, from where it and what it links to lie in the site."""
    here = page.file.src_uri
    path = Path(page.file.abs_src_path).relative_to(ROOT).as_posix()

    def turned(match: re.Match[str]) -> str:
        before, target = match.groups()
        if "://" in target or target.startswith("mailto:"):
            return match.group()
        there = posixpath.normpath(posixpath.join(posixpath.dirname(path), target)).removeprefix("docs/")
        return before + posixpath.relpath(there, posixpath.dirname(here) or ".")

    links = " · ".join(f"**[A dream of {DEMOS[name]}](demos/{name})**" for name in _demos())
    return LINK.sub(turned, markdown).replace(MARK, links or "This site was made without the pages themselves.")
