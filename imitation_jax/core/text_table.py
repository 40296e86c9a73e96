"""Tables as text for a terminal or a log: columns side by side, each as wide as what stands in it."""

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDEST = 1 << 20  # no line is folded: a table may be piped into a file


def text_table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Rows as lines, columns two spaces apart, without spaces at the end of a line.

    Args:
      rows: all of one length, the header first where there is one.
      left: so many first columns are flush left, the others flush right.
    """
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for column in range(len(rows[0]) if rows else 0):
        table.add_column(justify="left" if column < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    lines = io.StringIO()
    Console(file=lines, width=WIDEST, force_terminal=False, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in lines.getvalue().rstrip("\n").split("\n"))
