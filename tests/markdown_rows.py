"""A Markdown table, read back."""


def rows(tables: str, heading: str) -> dict[str, dict[str, str]]:
    """The table after a heading, by the first column: by the header's cells, the last of those that are alike."""
    lines = tables[tables.index(heading) :].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    cells = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        cells.append([cell.strip() for cell in line.strip("|").split("|")])
    header, _, *body = cells
    return {row[0]: dict(zip(header, row, strict=True)) for row in body}
