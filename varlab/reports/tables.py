"""Tables of a page as a reader wants them: an interval beside its estimate, words to the left, nothing said twice.

A notebook shows a table as pandas does, with its columns as code names them. On a page their bounds would take two more
columns each, long texts push the numbers out of sight, and the numbering of rows says nothing.
"""

import re

from bs4 import BeautifulSoup, Tag

ABSENT = ("NaN", "nan", "NaT", "None", "<NA>")  # as pandas writes them
DASH = "-"
NUMBER = re.compile(r"([-+.\d\s\[\](),x%/]|to|inf|\de[-+]\d)*")
INTEGER = re.compile(r"\d+")
# Of texts that go on in the next line: more letters than that.
WIDTHS = (("widest", 150), ("long", 40), ("middling", 20))
VERDICTS = ["claim", "finding", "verdict"]
BREAKS = re.compile(r"(?<=[:,+/])(?=\w)|(?<=\.)(?=[a-z])")  # where a spec or an id may go on in the next line


def arrange_tables(soup: BeautifulSoup) -> None:
    """All of a page, and what an account of verdicts says again where the page begins with them."""
    for table in soup.select("table.dataframe"):
        _clear(table)
        _merge_heads(table)
        columns = _columns(table)
        if columns:
            _drop_numbering(table)
            _join_bounds(columns)
            _mark_words(_columns(table))
        for head in table.select("thead tr:first-child th")[: len(table.select("tbody tr:first-child th"))]:
            _mark(head, "words")  # over the names of rows
        for head in table.select("thead th"):
            head.string = head.get_text().replace("_", " ")
        _size(table.select("tbody th"))
        for name in table.select(", ".join(f".{width}" for width, _ in WIDTHS)):
            _let_break(soup, name)
    if soup.select_one("#findings"):
        for table in soup.select(".outputs table"):
            if [head.get_text() for head in table.select("thead th")] == VERDICTS:
                _point_up(soup, table)


def _clear(table: Tag) -> None:
    """A dash where there is no value."""
    for cell in table.select("td"):
        if cell.get_text().strip() in ABSENT:
            cell.string, cell["title"] = DASH, "no value"


def _merge_heads(table: Tag) -> None:
    """The name of an index beside those of the columns, not in a row of its own."""
    rows = table.select("thead tr")
    if len(rows) != 2:
        return
    above, below = (row.find_all("th") for row in rows)
    pairs = list(zip(above, below, strict=False))
    if len(above) == len(below) and all(not one.get_text() or not two.get_text() for one, two in pairs):
        for one, two in pairs:
            one.string = one.get_text() or two.get_text()
        rows[1].decompose()


def _columns(table: Tag) -> list[list[Tag]]:
    """Head and cells of each column of values; none for a table whose heads span several."""
    heads, rows = table.select("thead tr"), [row.find_all("td") for row in table.select("tbody tr")]
    wide = {len(row) for row in rows}
    if not heads or len(wide) != 1 or table.select("[colspan]"):
        return []
    count = wide.pop()
    names = heads[0].find_all("th")[-count:] if count else []
    return [[name, *cells] for name, *cells in zip(names, *rows, strict=False)]


def _drop_numbering(table: Tag) -> None:
    """Rows that pandas numbered; an index with a name means something."""
    corner, names = table.select_one("thead th"), table.select("tbody th")
    if corner is None or corner.get_text() or not all(INTEGER.fullmatch(name.get_text()) for name in names):
        return
    if len(names) > len(table.select("tbody tr")):  # an index of several levels
        return
    for cell in (corner, *names):
        cell.decompose()


def _join_bounds(columns: list[list[Tag]]) -> None:
    """``0.946 [0.936, 0.956]`` for three columns: a value, its low and its high end."""
    for value, low, high in zip(columns, columns[1:], columns[2:], strict=False):
        name, *ends = (column[0].get_text().replace("_", " ") for column in (value, low, high))
        if ends not in ([f"{name} low", f"{name} high"], ["low", "high"]):
            continue
        for cell, least, most in zip(value[1:], low[1:], high[1:], strict=True):
            if least.get_text() != DASH:
                cell.string = f"{cell.get_text()} [{least.get_text()}, {most.get_text()}]"
        for end in (*low, *high):
            end.decompose()


def _mark_words(columns: list[list[Tag]]) -> None:
    """Columns of texts, which stand to the left."""
    for column in columns:
        texts = [cell.get_text().strip() for cell in column[1:]]
        if all(NUMBER.fullmatch(text) for text in texts):
            continue
        _size(column[1:])
        for cell in column:
            _mark(cell, "words")


def _size(cells: list[Tag]) -> None:
    """Long texts get a wide column and several lines."""
    longest = max((len(cell.get_text().strip()) for cell in cells), default=0)
    width = next((name for name, least in WIDTHS if longest > least), None)
    for cell in cells if width else ():
        _mark(cell, str(width))


def _mark(cell: Tag, name: str) -> None:
    cell["class"] = " ".join([*map(str, cell.get_attribute_list("class") if cell.get("class") else []), name])


def _let_break(soup: BeautifulSoup, cell: Tag) -> None:
    """Long names may break where one of their parts ends."""
    first, *rest = BREAKS.split(cell.get_text())
    cell.string = first
    for part in rest:
        cell.append(soup.new_tag("wbr"))
        cell.append(part)


def _point_up(soup: BeautifulSoup, table: Tag) -> None:
    said, link = soup.new_tag("p"), soup.new_tag("a", href="#findings")
    link.string = "at the top of this page"
    said.extend(["The verdicts stand ", link, "."])
    table.replace_with(said)
