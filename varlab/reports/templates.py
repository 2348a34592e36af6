"""The page of a report as a template for nbconvert; its look is in ``style``."""

from varlab.reports.style import POLICY

PAGE_TEMPLATE = """
{%- extends 'base/display_priority.j2' -%}
{%- block header -%}
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="POLICY">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ resources.title | escape_html }}</title>
<style>{{ resources.style }}</style></head>
<body>
<header><div class="meta"><a href="../index.html">All reports</a>
{% for viewer in resources.viewers %}<a href="{{ viewer | escape_html }}">Pictures side by side</a>
{% endfor %}<span>{{ resources.run.date }}</span>
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
<div class="claims">{% for row in resources.verdicts if row.figure %}<figure>
<img alt="{{ row.claim | escape_html }}: {{ row.verdict | escape_html }}" src="{{ row.figure }}"></figure>
{% endfor %}</div>
{% if resources.many %}<div class="tally">{% for word, tone, count in resources.many -%}
<span class="verdict {{ tone }}">{{ word | escape_html }} &times;{{ count }}</span>
{% endfor %}</div><details><summary>all {{ resources.verdicts | length }} verdicts</summary>{% endif %}
{% if resources.verdicts %}<table id="findings"
  class="verdicts"><thead><tr><th>Claim</th><th>Finding</th><th>Verdict</th></tr>
</thead><tbody>{% for row in resources.verdicts %}<tr><td>{{ row.claim | escape_html }}</td>
<td>{{ row.finding | escape_html }}</td>
<td><span class="verdict {{ row.tone }}">{{ row.verdict | escape_html }}</span></td></tr>
{% endfor %}</tbody></table>{% endif %}
{% if resources.many %}</details>{% endif %}
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
<div><img alt="{{ cell.metadata.alt | escape_html }}"
  src="data:image/svg+xml;base64,{{ output.data['image/svg+xml'] | text_base64 }}"></div>
{%- endblock -%}
{%- block data_png -%}
{%- set width = output.metadata.get('image/png', {}).get('width') -%}
<div><img alt="{{ cell.metadata.alt | escape_html }}"{% if width %} width="{{ width }}"{% endif %}
  src="data:image/png;base64,{{ output.data['image/png'] }}"></div>
{%- endblock -%}
{%- block data_jpg -%}
<div><img alt="{{ cell.metadata.alt | escape_html }}"
  src="data:image/jpeg;base64,{{ output.data['image/jpeg'] }}"></div>
{%- endblock -%}
{%- block footer -%}</main></body></html>{%- endblock footer -%}
""".replace("POLICY", POLICY)
