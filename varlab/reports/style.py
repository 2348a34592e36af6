"""The look of the pages: style sheets and templates, kept here as text so that nothing has to be found at
  run time.

One column of text, figures wider than the text, colours that follow the reader's light or dark setting,
  no script.
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data: file:; form-action 'none'"

BASE_STYLE = """
:root { color-scheme: light dark;
  --paper: #fbfaf8; --card: #ffffff; --ink: #1d2126; --soft: #5d6570; --line: #e2dfd9; --tint: #f2f0ec;
  --link: #1f5fa8; --good: #1c7c4a; --part: #9a6400; --bad: #b3323a;
  --text: "Charter", "Bitstream Charter", "Sitka Text", Cambria, Georgia, serif;
  --plain: system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif;
  --code: ui-monospace, "SF Mono", "Cascadia Code", "DejaVu Sans Mono", Menlo, monospace; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171b; --card: #1b1f25; --ink: #e2e5e9; --soft: #98a1ac; --line: #2e343c; --tint: #20252c;
  --link: #7fb4ee; --good: #62c793; --part: #e0ac4f; --bad: #f08a8f; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1.0625rem/1.6 var(--text); }
a { color: var(--link); text-decoration-thickness: 1px; text-underline-offset: .18em; }
h1, h2, h3, h4 { font-family: var(--plain); line-height: 1.25; letter-spacing: -.012em; text-wrap: balance; }
code, pre, kbd { font-family: var(--code); font-size: .86em; }
img { max-width: 100%; height: auto; }
.meta, .facts, .verdicts th, nav, summary { font-family: var(--plain); }
.meta { color: var(--soft); font-size: .8125rem; }
.facts { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; margin: 0; font-size: .875rem; }
.facts div { display: flex; gap: .45rem; min-width: 0; align-items: baseline; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
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
.summary .verdicts { width: 100%; margin: 0; }
.summary:not(:has(*)) { display: none; }
h1 { font-size: clamp(1.7rem, 4vw, 2.3rem); margin: 1.2rem 0 1rem; }
h2 { font-size: 1.4rem; margin: 2.8rem 0 .6rem; } h3 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
.anchor-link { margin-left: .4em; color: var(--line); text-decoration: none; opacity: 0; }
:is(h1, h2, h3, h4):hover > .anchor-link { opacity: 1; }
blockquote { margin: 1rem 0; padding-left: 1rem; border-left: 3px solid var(--line); color: var(--soft); }
:not(pre) > code { background: var(--tint); padding: .1em .3em; border-radius: 4px; overflow-wrap: anywhere; }
pre { overflow-x: auto; line-height: 1.5; margin: .6rem 0; }
.math { display: inline-block; overflow: visible; }
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
nav { margin: 0 0 2.2rem; border-top: 1px solid var(--line); font-size: .9375rem; }
nav p { margin: 0; padding: .4rem 0; display: flex; flex-wrap: wrap; gap: .1rem 1.5rem; align-items: baseline;
  justify-content: space-between; border-bottom: 1px solid var(--line); }
.tally { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; }
nav a { text-decoration: none; } nav a:hover { text-decoration: underline; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 14px; margin: 0 0 1.6rem;
  padding: clamp(1.1rem, 3vw, 1.9rem); scroll-margin-top: 1rem; }
article > *, article > .facts { margin: 0 0 1.1rem; } article > :last-child { margin-bottom: 0; }
article h2 { font-size: 1.35rem; margin-bottom: .5rem; }
article h2 a { color: inherit; text-decoration: none; } article h2 a:hover { text-decoration: underline; }
.claim { max-width: 46rem; } .claim p { margin: 0; }
.math { display: inline-block; overflow: visible; }
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
.verdicts { width: 100%; border-collapse: collapse; font-size: .9375rem; line-height: 1.45; }
.verdicts th { text-align: left; font-size: .75rem; font-weight: 600; color: var(--soft); }
.verdicts th, .verdicts td { padding: .4rem 1rem .4rem 0; vertical-align: top; border-bottom: 1px solid
  var(--line); }
.verdicts td:first-child { width: 40%; }
.parameters { background: var(--tint); border-radius: 8px; padding: .6rem .9rem; }
.parameters dd { font-family: var(--code); font-size: .8125rem; }
.warn { color: var(--part); }
.files { display: flex; flex-wrap: wrap; gap: .2rem 1rem; }
.empty { color: var(--soft); }
@media (max-width: 40rem) { .verdicts thead { display: none; } .verdicts td { display: block; border: 0;
  padding: 0;
  width: auto !important; } .verdicts tr { display: block; padding: .5rem 0; border-bottom: 1px solid
  var(--line); } }
"""
)

PAGE_TEMPLATE = """
{%- extends 'base/display_priority.j2' -%}
{%- block header -%}
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="POLICY">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ resources.metadata.name | escape_html }}</title>
<style>{{ resources.style }}</style></head>
<body>
<header><div class="meta"><a href="../index.html">All reports</a><span>{{ resources.run.date }}</span>
{% for package, version in (resources.run.versions or {}).items() -%}
<span>{{ package | escape_html }} {{ version | escape_html }}</span>
{% endfor %}</div></header>
<nav class="contents" aria-label="Sections"></nav>
<main>
<section class="summary">
{% if resources.facts %}<dl class="facts">
{%- for name, value in resources.facts -%}
<div><dt>{{ name | escape_html }}</dt><dd>{{ value | escape_html }}</dd></div>
{%- endfor -%}</dl>{% endif %}
{% if resources.run.error %}<p class="stopped">This run stopped: {{ resources.run.error | escape_html
  }}</p>{% endif %}
{% if resources.verdicts %}<table
  class="verdicts"><thead><tr><th>Claim</th><th>Finding</th><th>Verdict</th></tr>
</thead><tbody>{% for row in resources.verdicts %}<tr><td>{{ row.claim | escape_html }}</td>
<td>{{ row.finding | escape_html }}</td>
<td><span class="verdict {{ row.tone }}">{{ row.verdict | escape_html }}</span></td></tr>
{% endfor %}</tbody></table>{% endif %}
</section>
{%- endblock header -%}

{%- block codecell -%}
{%- set tags = cell.metadata.get('tags', []) -%}
{%- if 'parameters' in tags -%}
{%- if resources.parameters -%}
<details class="parameters" open><summary>Parameters</summary><table class="parameters">
{%- for row in resources.parameters -%}
<tr><td class="name"><code>{{ row.name | escape_html }}</code></td>
<td class="value{{ ' changed' if row.changed }}">{{ row.value | escape_html }}</td>
<td>{{ row.help | escape_html }}{% if row.changed %} (default {{ row.default | escape_html }}){% endif
  %}</td></tr>
{%- endfor -%}</table></details>
{%- endif -%}
{%- elif 'injected-parameters' not in tags -%}
{%- if cell.source.strip() and 'hide-input' not in tags -%}
<details class="source"><summary>code <code>{{ cell.source | first_line | escape_html }}</code></summary>
{{ cell.source | highlight_code(metadata=cell.metadata) }}</details>
{%- endif -%}
{%- if cell.outputs -%}<div class="outputs">{{ self.outputs() }}</div>{%- endif -%}
{%- endif -%}
{%- endblock codecell -%}

{%- block outputs scoped -%}{{ super() }}{%- endblock outputs -%}
{%- block execute_result -%}{%- block data_priority scoped -%}{{ super() }}{%- endblock -%}{%- endblock -%}
{%- block markdowncell scoped -%}{{ cell.source | markdown2html }}{%- endblock markdowncell -%}
{%- block stream_stdout -%}<pre>{{ output.text | ansi2html }}</pre>{%- endblock -%}
{%- block stream_stderr -%}
<details><summary>messages</summary><pre>{{ output.text | ansi2html }}</pre></details>
{%- endblock -%}
{%- block error -%}<pre class="error">{{ super() }}</pre>{%- endblock -%}
{%- block traceback_line -%}{{ line | ansi2html }}
{% endblock -%}
{%- block data_text -%}<pre>{{ output.data['text/plain'] | ansi2html }}</pre>{%- endblock -%}
{%- block data_html -%}<div>{{ output.data['text/html'] }}</div>{%- endblock -%}
{%- block data_markdown -%}<div>{{ output.data['text/markdown'] | markdown2html }}</div>{%- endblock -%}
{%- block data_latex -%}{{ output.data['text/latex'] | formula }}{%- endblock -%}
{%- block data_svg -%}
<div><img alt="Figure" src="data:image/svg+xml;base64,{{ output.data['image/svg+xml'] | text_base64 }}"></div>
{%- endblock -%}
{%- block data_png -%}
<div><img alt="Figure" src="data:image/png;base64,{{ output.data['image/png'] }}"></div>
{%- endblock -%}
{%- block data_jpg -%}
<div><img alt="Figure" src="data:image/jpeg;base64,{{ output.data['image/jpeg'] }}"></div>
{%- endblock -%}
{%- block footer -%}</main></body></html>{%- endblock footer -%}
""".replace("POLICY", POLICY)

INDEX_TEMPLATE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="POLICY">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>varlab reports</title>
<style>{{ style | safe }}</style></head>
<body><main>
<h1>Reports</h1>
<p class="meta">{{ cards | length }} report{{ "" if cards | length == 1 else "s" }} on next-scale image
  models, \
each drawn from logs and tables. Everything here is kept beside this page; nothing is loaded from the
  network.</p>
{% if cards | length > 1 %}<nav aria-label="Reports">
{% for card in cards %}<p><a href="#{{ card.name | urlencode }}">{{ card.title }}</a>
<span class="tally">{% if card.error %}<span class="verdict bad">stopped</span>{% endif %}
{% for word, tone, count in card.tally %}<span class="verdict {{ tone }}">{{ word }}\
{% if count > 1 %} &times;{{ count }}{% endif %}</span>{% endfor %}</span></p>
{% endfor %}</nav>{% endif %}
{% for card in cards %}<article id="{{ card.name }}">
<h2><a href="{{ card.html or card.notebook }}">{{ card.title }}</a></h2>
{% if card.claim %}<div class="claim">{{ card.claim | safe }}</div>{% endif %}
{% if card.error %}<p class="stopped">The last run stopped: {{ card.error }}</p>{% endif %}
{% if card.verdicts %}<table
  class="verdicts"><thead><tr><th>Claim</th><th>Finding</th><th>Verdict</th></tr></thead>
<tbody>{% for row in card.verdicts %}<tr><td>{{ row.claim }}</td><td>{{ row.finding }}</td>
<td><span class="verdict {{ row.tone }}">{{ row.verdict }}</span></td></tr>{% endfor %}</tbody></table>{%
  endif %}
{% if card.figures %}<div class="figures">{% for figure in card.figures %}<figure>
<a href="{{ figure.png }}"><img loading="lazy" alt="{{ figure.title }}" src="{{ figure.png }}"></a>
<figcaption><span>{{ figure.title }}</span>{% for kind, href in figure.links %}<a href="{{ href }}">{{
  kind }}</a>\
{% endfor %}</figcaption></figure>{% endfor %}</div>{% endif %}
<dl class="facts">{% for name, value in card.facts %}<div><dt>{{ name }}</dt>\
<dd{% if value == "not recorded" %} class="warn"{% endif %}>{{ value }}</dd></div>{% endfor %}</dl>
{% if card.parameters %}<dl class="facts parameters"><div><dt><b>Parameters</b></dt></div>{% for name,
  value in card.parameters %}<div>\
<dt>{{ name }}</dt><dd>{{ value }}</dd></div>{% endfor %}</dl>{% endif %}
<p class="meta files">{% if card.html %}<a href="{{ card.html }}">Page</a>{% endif %}
<a href="{{ card.notebook }}">Notebook</a>
{% for name, href in card.files %}<a href="{{ href }}">{{ name }}</a>{% endfor %}
<span>{{ card.date }}</span>{% for package, version in card.versions %}<span>{{ package }} {{ version
  }}</span>\
{% endfor %}</p>
</article>
{% else %}<p class="empty">No reports yet. Run one with: varlab report &lt;name&gt;</p>{% endfor %}
</main></body></html>
""".replace("POLICY", POLICY)


def code_colours() -> str:
    """Pygments' colours for code, light and dark, without backgrounds."""
    from pygments.formatters import HtmlFormatter

    def rules(style: str) -> str:
        lines = HtmlFormatter(style=style, nobackground=True).get_style_defs(".highlight").splitlines()
        return "\n".join(line for line in lines if line.startswith(".highlight ."))

    return f"{rules('friendly')}\n@media (prefers-color-scheme: dark) {{\n{rules('github-dark')}\n}}\n"
