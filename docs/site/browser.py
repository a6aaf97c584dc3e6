"""Opens every page of the site in a headless Chromium, at a phone's width, and reports what is wrong.

A server on this machine serves the site, with a script in front of each page that reports errors: exceptions,
`console.error`, and files that do not load. One page of its own (`HARNESS`) opens the others in a frame, one
after the other, looks at each, and sends what it found.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTH = 375  # CSS pixels, a small phone
SECONDS = 900  # for all pages, also on a busy machine

REPORTER = """<script>
window.problems = [];
addEventListener("error", (e) => problems.push(
  e.target !== window && e.target ? `${e.target.tagName} ${e.target.src || e.target.href} does not load`
                                  : `error: ${e.message}`), true);
addEventListener("unhandledrejection", (e) => problems.push(`error: ${e.reason}`));
console.error = (...words) => problems.push(`console: ${words.join(" ")}`);
</script>"""

HARNESS = """<!doctype html><html><body><script>
const pages = %s, found = [];
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
async function open(page) {
  const frame = document.createElement("iframe");
  frame.style.cssText = "width:%dpx;height:800px;border:0";
  const loaded = new Promise((resolve) => { frame.onload = resolve; });
  frame.src = "/" + page;
  document.body.append(frame);
  await loaded;
  return frame;
}
async function look(page) {
  const frame = await open(page), view = frame.contentWindow, doc = frame.contentDocument;
  const report = (text) => found.push(`${page}: ${text}`);
  view.problems.forEach(report);
  for (const image of doc.images) if (!image.naturalWidth) report(`picture ${image.src} is not shown`);
  for (const formula of doc.querySelectorAll(".math"))
    if (!formula.querySelector("math") || formula.querySelector(".katex-error, merror"))
      report(`formula ${formula.textContent.slice(0, 60)} is not typeset`);
  const width = doc.documentElement.scrollWidth;
  if (width > view.innerWidth) report(`is ${width} pixels wide on a screen of ${view.innerWidth}`);
  for (const entry of view.performance.getEntriesByType("resource"))
    if (!entry.name.startsWith(location.origin)) report(`fetches ${entry.name}`);
  frame.remove();
}
async function search() {
  const frame = await open("search.html?q=convolution"), doc = frame.contentDocument;
  for (let i = 0; i < 100 && !doc.querySelector("#search-results li a"); i++) await wait(100);
  if (!doc.querySelector("#search-results li a")) found.push("search.html: finds no page with convolution");
  frame.remove();
}
async function modes() {
  const frame = await open("index.html"), view = frame.contentWindow, body = frame.contentDocument.body;
  const colours = ["light", "dark"].map((mode) => {
    body.dataset.theme = mode;
    return view.getComputedStyle(body).backgroundColor;
  });
  if (colours[0] === colours[1]) found.push("index.html: is the same in light and dark mode");
  frame.remove();
}
(async () => {
  try {
    for (const page of pages) await look(page);
    await search();
    await modes();
  } catch (error) { found.push(`the check failed: ${error}`); }
  await fetch("/found", { method: "POST", body: JSON.stringify(found) });
})();
</script></body></html>"""


class Handler(SimpleHTTPRequestHandler):
    """Serves the site with the reporter in each page, and receives what the harness found."""

    def __init__(self, *arguments: object, found: Queue, harness: str, directory: str) -> None:
        self.found, self.harness = found, harness
        super().__init__(*arguments, directory=directory)

    def do_GET(self) -> None:  # noqa: N802, the name that the base class calls
        """Send a file; a page with the reporter at its start."""
        path = Path(self.translate_path(self.path))
        if self.path == "/harness":
            self._send(self.harness)
        elif path.suffix == ".html" and path.is_file():
            self._send(path.read_text(encoding="utf-8").replace("<head>", f"<head>{REPORTER}", 1))
        else:
            super().do_GET()

    def do_POST(self) -> None:  # noqa: N802
        """Receive the problems."""
        self.found.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._send("")

    def _send(self, text: str) -> None:
        content = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        """Print nothing for a request."""


def browser() -> str | None:
    """Return the path of a Chromium; None if there is none."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def check(site: Path) -> list[str]:
    """Return the problems that a browser finds on the pages of a site; without a browser, a note and []."""
    program = browser()
    if program is None:
        print("no Chromium: the pages were not opened, only their links were checked")
        return []
    pages = [path.relative_to(site).as_posix() for path in sorted(site.rglob("*.html"))]
    # A page of source code is like the others of its kind.
    shown = [page for page in pages if not page.startswith("code/")] + ["code/minidl/tensor.py.html"]
    found: Queue = Queue()
    harness = HARNESS % (json.dumps([page for page in shown if page in pages]), WIDTH)
    handler = partial(Handler, found=found, harness=harness, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, tempfile.TemporaryDirectory() as profile:
        Thread(target=server.serve_forever, daemon=True).start()
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        address = f"http://127.0.0.1:{server.server_port}/harness"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        child = subprocess.Popen([program, *options, "--remote-debugging-port=0", address], **quiet)
        try:
            return found.get(timeout=SECONDS)
        except Empty:
            return [f"{program} did not finish in {SECONDS} seconds"]
        finally:
            child.terminate()
            child.wait()
            server.shutdown()
