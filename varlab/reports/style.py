"""The look of the pages, kept as text so that nothing has to be found at run time.

One column of text, figures wider than the text, colours that follow the reader's light or dark setting, no script.
What is wider than the window, a table or a long formula, scrolls within its own box and says so.
"""

BASE_STYLE = """
:root { color-scheme: light dark;
  --paper: #fbfaf8; --card: #ffffff; --ink: #1d2126; --soft: #5d6570; --line: #e2dfd9; --tint: #f2f0ec;
  --link: #1f5fa8; --shade: rgb(0 0 0 / .22); --good: #1c7c4a; --part: #9a6400; --bad: #b3323a;
  --text: "Charter", "Bitstream Charter", "Sitka Text", Cambria, Georgia, serif;
  --plain: system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif;
  --code: ui-monospace, "SF Mono", "Cascadia Code", "DejaVu Sans Mono", Menlo, monospace; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171b; --card: #1b1f25; --ink: #e2e5e9; --soft: #98a1ac; --line: #2e343c; --tint: #20252c;
  --link: #7fb4ee; --shade: rgb(255 255 255 / .25); --good: #62c793; --part: #e0ac4f; --bad: #f08a8f; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; overflow-wrap: break-word; background: var(--paper);
  color: var(--ink); font: 1.0625rem/1.6 var(--text); }
a { color: var(--link); text-decoration-thickness: 1px; text-underline-offset: .18em; }
h1, h2, h3, h4 { font-family: var(--plain); line-height: 1.25; letter-spacing: -.012em; text-wrap: balance; }
code, pre, kbd { font-family: var(--code); font-size: .86em; }
img { max-width: 100%; height: auto; }
/* A shadow at each edge beyond which there is more; the covers hide it where there is not. */
.scroll { overflow-x: auto; max-width: 100%; scrollbar-width: thin; position: relative;
  background: linear-gradient(to right, var(--paper) 30%, transparent) left / 2.4rem 100% no-repeat local,
    linear-gradient(to left, var(--paper) 30%, transparent) right / 2.4rem 100% no-repeat local,
    linear-gradient(to right, var(--shade), transparent) left / .9rem 100% no-repeat scroll,
    linear-gradient(to left, var(--shade), transparent) right / .9rem 100% no-repeat scroll; }
.scroll:focus-visible { outline: 2px solid var(--link); }
@supports (animation-timeline: scroll()) {
  .scroll::before { content: "wider than the window: scroll →"; position: sticky; left: 0; display: block;
    width: max-content; font: .75rem/1.6 var(--plain); color: var(--soft); height: 0; overflow: hidden;
    animation: wide linear both; animation-timeline: scroll(nearest inline); }
  @keyframes wide { from, to { height: 1.6em; } } }
.math { display: inline-block; max-width: 100%; overflow: visible; }
.verdicts { width: 100%; border-collapse: collapse; }
@media (max-width: 40rem) { .verdicts thead { display: none; }
  table:is(.verdicts, .parameters) :is(tr, td) { display: block; width: auto !important; padding: 0; border: 0; }
  table:is(.verdicts, .parameters) tr { padding: .5rem 0; border-bottom: 1px solid var(--line); } }
.meta, .facts, .verdicts th, nav, summary { font-family: var(--plain); }
.meta { color: var(--soft); font-size: .8125rem; }
.facts { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; margin: 0; font-size: .875rem; }
.facts div { display: flex; gap: .45rem; min-width: 0; max-width: 100%; align-items: baseline; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; min-width: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.verdict { font-family: var(--plain); font-size: .8125rem; font-weight: 600; white-space: nowrap; color:
  var(--soft); }
.verdict::before { content: ""; display: inline-block; width: .5em; height: .5em; margin-right: .4em;
  border-radius: 50%; background: currentColor; }
.verdict.good { color: var(--good); } .verdict.part { color: var(--part); } .verdict.bad { color:
  var(--bad); }
.stopped { border-left: 3px solid var(--bad); padding: .4rem .9rem; color: var(--bad); font-family:
  var(--plain);
  font-size: .9375rem; overflow-wrap: anywhere; }
"""

PAGE_STYLE = (
    BASE_STYLE
    + """
body > header { border-bottom: 1px solid var(--line); }
body > header .meta { max-width: 62rem; margin: 0 auto; padding: .7rem 1.25rem; display: flex; flex-wrap:
  wrap;
  gap: .2rem 1.2rem; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1.25rem 6rem; }
main > * { max-width: 44rem; }
main > h1, main > .summary, main > .outputs, main > .source { max-width: none; }
.summary .facts { padding: .6rem 0; border-block: 1px solid var(--line); }
.summary .verdicts { margin: 0; }
.summary:not(:has(*)) { display: none; }
h1 { font-size: clamp(1.7rem, 4vw, 2.3rem); margin: 1.2rem 0 1rem; }
h2 { font-size: 1.4rem; margin: 2.8rem 0 .6rem; } h3 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
.anchor-link { margin-left: .4em; color: var(--line); text-decoration: none; opacity: 0; }
:is(h1, h2, h3, h4):hover > .anchor-link { opacity: 1; }
blockquote { margin: 1rem 0; padding-left: 1rem; border-left: 3px solid var(--line); color: var(--soft); }
:not(pre) > code { background: var(--tint); padding: .1em .3em; border-radius: 4px; overflow-wrap: anywhere; }
pre { overflow-x: auto; line-height: 1.5; margin: .6rem 0; }
.formula { margin: 1.1rem 0; overflow-x: auto; text-align: center; }
details { margin: .35rem 0; }
summary { cursor: pointer; color: var(--soft); font-size: .75rem; line-height: 1.5; list-style: none;
  display: flex;
  gap: .6rem; align-items: baseline; min-width: 0; }
summary::-webkit-details-marker { display: none; }
summary::before { content: "+"; font-family: var(--code); }
details[open] > summary::before { content: "\\2212"; }
summary code, .name code { background: none !important; padding: 0 !important; }
summary code { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; opacity: .8; }
summary:hover, summary:focus-visible { color: var(--ink); }
details > pre, details .highlight { background: var(--tint); border-radius: 8px; padding: .7rem .9rem;
  margin: .4rem 0 .8rem; overflow-x: auto; }
.highlight pre { margin: 0; }
.outputs { margin: .5rem 0 1.4rem; }
.outputs > * { overflow-x: auto; }
.outputs > pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding:
  .7rem .9rem; }
.outputs > pre.error { border-color: var(--bad); }
.outputs img { display: block; background: #fff; border: 1px solid var(--line); border-radius: 8px;
  padding: .6rem; }
table { border-collapse: collapse; font: .875rem/1.45 var(--plain); font-variant-numeric: tabular-nums;
  border: 0;
  margin: .6rem 0; }
th, td { padding: .32rem .8rem .32rem 0; text-align: left; vertical-align: top; border: 0;
  border-bottom: 1px solid var(--line); }
thead th { border-bottom: 1.5px solid var(--soft); font-weight: 600; }
.dataframe th, .dataframe td { text-align: right !important; white-space: nowrap; padding: .32rem .8rem; }
.dataframe th:first-child, .dataframe tbody th { text-align: left !important; padding-left: 0; }
.parameters td:nth-child(2) { overflow-wrap: anywhere; } .parameters .changed { font-weight: 650; }
.parameters td { color: var(--soft); } .parameters td.value, .parameters td.name { color: var(--ink); }
.parameters td.name code { overflow-wrap: normal; white-space: nowrap; }
nav.contents a { display: block; padding: .2rem 0; text-decoration: none; font-size: .8125rem; color:
  var(--soft); }
nav.contents a:hover { color: var(--ink); }
nav.contents:empty { display: none; }
@media (max-width: 92rem) { nav.contents { display: none; } }
@media (min-width: 92.01rem) { nav.contents { position: fixed; top: 5.5rem; left: calc(50% - 45rem);
  width: 12rem; } }
@media print { nav.contents, body > header a, details.source { display: none; } main { padding-top: 0; } }
"""
)

INDEX_STYLE = (
    BASE_STYLE
    + """
main { max-width: 74rem; margin: 0 auto; padding: 2.2rem 1.25rem 5rem; }
main > h1 { font-size: clamp(1.8rem, 4vw, 2.4rem); margin: 0 0 .3rem; }
main > .meta { margin: 0 0 1.8rem; }
.tally { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; }
summary { cursor: pointer; font-size: .875rem; color: var(--link); width: max-content; max-width: 100%; }
details > * { margin: 0 0 1.1rem; } details[open] > summary { margin-bottom: 1.1rem; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 14px; margin: 0 0 1.6rem;
  padding: clamp(1.1rem, 3vw, 1.9rem); scroll-margin-top: 1rem; --paper: var(--card); }
article > *, article > .facts { margin: 0 0 1.1rem; } article > :last-child { margin-bottom: 0; }
article h2 { font-size: 1.35rem; margin-bottom: .5rem; }
article h2 a { color: inherit; text-decoration: none; } article h2 a:hover { text-decoration: underline; }
.claim { max-width: 46rem; } .claim p { margin: 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); gap:
  1.1rem; }
figure { margin: 0; min-width: 0; }
figure > a { display: flex; align-items: center; justify-content: center; height: 12rem; background: #fff;
  border: 1px solid var(--line); border-radius: 8px; padding: .5rem; }
figure > a:hover, figure > a:focus-visible { border-color: var(--link); }
figure img { max-height: 100%; object-fit: contain; }
figcaption { font: .8125rem/1.4 var(--plain); padding-top: .4rem; display: flex; flex-wrap: wrap; gap:
  .1rem .6rem; }
figcaption span { flex: 1 1 8rem; overflow-wrap: anywhere; }
.verdicts { font-size: .9375rem; line-height: 1.45; }
.verdicts th { text-align: left; font-size: .75rem; font-weight: 600; color: var(--soft); }
.verdicts th, .verdicts td { padding: .4rem 1rem .4rem 0; vertical-align: top; border-bottom: 1px solid
  var(--line); }
.verdicts td:first-child { width: 40%; }
.parameters { background: var(--tint); border-radius: 8px; padding: .6rem .9rem; }
.parameters dd { font-family: var(--code); font-size: .8125rem; }
.warn { color: var(--part); }
.files { display: flex; flex-wrap: wrap; gap: .2rem 1rem; }
.empty { color: var(--soft); }
"""
)


def code_colours() -> str:
    """Pygments' colours for code, light and dark, without backgrounds."""
    from pygments.formatters import HtmlFormatter

    def rules(style: str) -> str:
        lines = HtmlFormatter(style=style, nobackground=True).get_style_defs(".highlight").splitlines()
        return "\n".join(line for line in lines if line.startswith(".highlight ."))

    return f"{rules('friendly')}\n@media (prefers-color-scheme: dark) {{\n{rules('github-dark')}\n}}\n"
