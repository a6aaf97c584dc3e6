"""Checks a built site: every link leads somewhere, and in a browser the pages are as they should be.

    python docs/site/check.py build/site

The links are read from the HTML. If there is a Chromium, it also opens every page at a phone's width and
reports errors in its console, pictures that do not load, formulas that are not typeset, files that are
fetched from elsewhere, and pages that are wider than the screen.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

sys.path.insert(0, str(Path(__file__).parent))


class Links(HTMLParser):
    """The anchors of a page, its links, and the files that it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what a tag links to."""
        given = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := given.get(name))}
        if tag == "a" and given.get("href") is not None:
            self.links.append(given["href"])
        for name in ("src",) if tag != "link" else ("href",):
            if given.get(name):
                self.loads.append(given[name])


def check(site: Path) -> list[str]:
    """Return the problems of a site, [] if there are none."""
    problems = check_links(site)
    if not problems:
        import browser

        problems = browser.check(site)
    return problems


def check_links(site: Path) -> list[str]:
    """Return each link of a page to a missing file or anchor, and each file that comes from elsewhere."""
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    problems = [] if pages else [f"{site}: contains no page; build the site first"]
    for path, page in pages.items():
        name = path.relative_to(site)
        problems += [f"{name}: loads {link} from elsewhere" for link in page.loads if is_remote(link)]
        for link in dict.fromkeys([*page.links, *page.loads]):
            if problem := broken(path, link, pages):
                problems.append(f"{name}: {problem}")
    return problems


def is_remote(link: str) -> bool:
    """Return whether a link needs a network."""
    return link.startswith("//") or urlsplit(link).scheme in ("http", "https", "ftp")


def broken(path: Path, link: str, pages: dict[Path, Links]) -> str | None:
    """Return what is wrong with a link of a page; None if it leads to a file and an anchor that exist."""
    if is_remote(link) or urlsplit(link).scheme in ("mailto", "data", "javascript"):
        return None
    target, anchor = urldefrag(link)
    target = target.partition("?")[0]
    file = (path.parent / unquote(target)).resolve() if target else path
    if not file.is_file():
        return f"{link} is missing"
    if anchor and file in pages and unquote(anchor) not in pages[file].anchors | {"top"}:
        return f"{link} has no such anchor"
    return None


if __name__ == "__main__":
    found = check(Path(sys.argv[1]).resolve())
    print("\n".join(found) or "no problems")
    sys.exit(1 if found else 0)
