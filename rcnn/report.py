"""Tables of the paper with ours beside: `python -m rcnn.report outputs/coco`.

Reads result files alone. Several result files that differ only in their seed give mean ± standard deviation. Tables 1 and
3 are made of MS-COCO's results, 2 and 3 of NUS-WIDE's, 2 of Open Images'; rows of other methods are the paper's numbers. A
result on other classes or images than the paper's is shown, and marked as not comparable, as are rows of others.
"""

import sys
from pathlib import Path

from rcnn import cli
from rcnn.files import replace_file
from rcnn.results.result import Result
from rcnn.results.tables import FORMATS, group, render, tables


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser("report", __doc__, keys=None)
    parser.add_argument("results", nargs="+", metavar="RESULT", help="result.json, or the folder of a run")
    parser.add_argument("--format", choices=FORMATS, default="markdown")
    parser.add_argument("--write", metavar="FOLDER", help="also write tables.md, tables.csv and tables.tex there")
    parser.add_argument("--table", type=int, choices=(1, 2, 3), action="append", help="only this table; may be repeated")
    args = parser.parse_args(argv)
    made = tables(group((path, Result.load(path)) for path in args.results))
    if args.table:
        if absent := set(args.table) - {int(table.key[-1]) for table in made}:
            raise ValueError(f"--table: these results have no table {min(absent)}")
        made = [table for table in made if int(table.key[-1]) in args.table]
    for form, suffix in FORMATS.items() if args.write else ():
        with replace_file(Path(args.write) / f"tables.{suffix}") as file:
            file.write((render(made, form) + "\n").encode())
    sys.stdout.write(render(made, args.format) + "\n")


if __name__ == "__main__":
    cli.run(main)
