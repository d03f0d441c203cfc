"""Source files as pages: pure functions from text to HTML. Needs pygments."""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import groupby

from msgspec import Struct

END = "</html>\n"
STYLE = "style.css"
INDEX = "index.html"
LIGHT, DARK = "friendly", "github-dark"


class Page(Struct, frozen=True):
    """A rendered file. `source` is its path below the library, `target` below the output folder; `size` in bytes of
    HTML, `seconds` what it took. `digest` is the SHA-256 of the page; `retries` and `attempts` are the task's own."""

    source: str
    target: str
    lines: int
    size: int
    digest: str
    seconds: float
    retries: int
    attempts: int
    pid: int


def highlighted(source: str, text: str) -> str:
    """The page of one source file."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    formatter = HtmlFormatter(linenos="inline", lineanchors="L", anchorlinenos=True, cssclass="code")
    body = highlight(text, PythonLexer(stripnl=False), formatter)
    up = "../" * (source.count("/") + 1)
    crumbs = f'<a href="{up}{INDEX}">standard library</a> / {html.escape(source)}'
    return document(source, up + STYLE, f"<header class=bar>{crumbs}</header>\n{body}")


def index(pages: Sequence[Page], version: str) -> str:
    """The page that lists all others, by package."""
    lines, work = sum(page.lines for page in pages), sum(page.seconds for page in pages)
    total = f"{len(pages):,} files, {lines:,} lines, {work:,.0f} s of work"
    processes = len({page.pid for page in pages})
    parts = [
        f"<header class=top><h1>Python {html.escape(version)}</h1><p>The standard library, pre-rendered by "
        f"<b>penstock demo</b>: {total}, done in the background by {processes} processes.</p>",
        *_incidents(pages),
        '<input id=find type=search placeholder="Find a file…" autofocus></header><main>',
    ]
    ordered = sorted(pages, key=lambda page: (package(page), page.source))
    for name, group in groupby(ordered, key=package):
        members = list(group)
        lines = sum(page.lines for page in members)
        parts.append(
            f"<section><h2>{html.escape(name)} <small>{len(members):,} files, {lines:,} lines</small></h2><ul>"
        )
        parts += [_entry(page) for page in members]
        parts.append("</ul></section>")
    parts.append(f"</main><script>{FIND}</script>")
    return document(f"Python {version}", STYLE, "\n".join(parts))


def package(page: Page) -> str:
    """The first folder; modules without one come first."""
    folder, _, rest = page.source.partition("/")
    return folder if rest else "(modules)"


def _incidents(pages: Sequence[Page]) -> list[str]:
    """What went wrong on the way, and was put right."""
    told = {
        "failed once, was retried": [page for page in pages if page.retries],
        "its process was killed, rendered by another": [page for page in pages if page.attempts],
    }
    return [
        f'<p class=incident>{what}: <a href="{html.escape(page.target)}">{html.escape(page.source)}</a></p>'
        for what, some in told.items()
        for page in some[:5]
    ]


def _entry(page: Page) -> str:
    marks = ("<i title='failed once, and was retried'>retried</i>" if page.retries else "") + (
        "<i title='its process was killed; rendered again by another'>redelivered</i>" if page.attempts else ""
    )
    name = page.source.partition("/")[2] or page.source
    return f'<li><a href="{html.escape(page.target)}">{html.escape(name)}</a>{marks}<small>{page.lines:,}</small></li>'


def document(title: str, style: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{html.escape(title)}</title><link rel="stylesheet" href="{style}"></head><body>\n{body}\n</body>{END}'
    )


def style() -> str:
    """One style sheet for all pages, for light and dark screens."""
    from pygments.formatters import HtmlFormatter

    # types-Pygments leaves `get_style_defs` untyped.
    light = HtmlFormatter(style=LIGHT).get_style_defs(".code")  # type: ignore[no-untyped-call]  # as said
    dark = HtmlFormatter(style=DARK).get_style_defs(".code")  # type: ignore[no-untyped-call]  # as said
    return f"{LAYOUT}\n{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{LAST}\n"


FIND = """
const find = document.getElementById("find");
find.oninput = () => {
  const word = find.value.toLowerCase();
  for (const section of document.querySelectorAll("section")) {
    let some = false;
    for (const item of section.querySelectorAll("li")) {
      const hit = item.firstChild.getAttribute("href").toLowerCase().includes(word);
      item.hidden = !hit;
      some = some || hit;
    }
    section.hidden = !some;
  }
};
"""
LAYOUT = """
:root { color-scheme: light dark; --back: #fbfbfa; --card: #fff; --text: #1c2430; --faint: #6b7683; --line: #e4e7eb;
  --link: #0b62b5; --accent: #0e7c86; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --card: #151b23; --text: #e2e8ef; --faint: #8b96a3;
  --line: #2a323d; --link: #6cb6ff; --accent: #4fc3cd; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
.top { padding: 2.5rem max(1.5rem, 5vw) 1.5rem; border-top: 4px solid var(--accent); }
.top h1 { margin: 0; font-size: 2rem; letter-spacing: -.02em; }
.top p { margin: .3rem 0 1.2rem; color: var(--faint); }
.top .incident { margin: -.9rem 0 1.1rem; font-size: .85rem; }
#find:focus { outline: 2px solid var(--accent); outline-offset: -1px; }
#find { width: 100%; max-width: 28rem; padding: .6rem .9rem; font: inherit; color: inherit; background: var(--card);
  border: 1px solid var(--line); border-radius: 8px; }
main { padding: 0 max(1.5rem, 5vw) 4rem; display: grid; gap: 1rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .9rem 1.2rem 1.1rem; }
section[hidden], li[hidden] { display: none; }
h2 { margin: 0 0 .5rem; font-size: 1.05rem; }
small { color: var(--faint); font-weight: normal; font-size: .8rem; }
ul { margin: 0; padding: 0; list-style: none; display: grid; gap: .1rem 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); }
li { display: flex; gap: .5rem; align-items: baseline; min-width: 0; }
li a { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
li small { margin-left: auto; font-variant-numeric: tabular-nums; }
li i { font-style: normal; font-size: .72rem; padding: 0 .4rem; border-radius: 1rem; color: #fff;
  background: var(--accent); }
.bar { position: sticky; top: 0; padding: .6rem 1rem; background: var(--card); border-bottom: 1px solid var(--line); }
"""
LAST = """
.code, .code pre { background: var(--back) !important; margin: 0; }
.code pre { padding: .8rem 1rem 3rem; overflow-x: auto;
  font: 13px/1.55 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.code .linenos { background: none !important; color: var(--faint) !important; padding-right: 1.2em; opacity: .7; }
"""
