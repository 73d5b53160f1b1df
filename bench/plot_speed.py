#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws docs/images/speed.svg, the picture of README.md, from bench/results.

    plot_speed.py [--output FILE] [--check]

A bar is the speed of a library where trit's is 1; the figure beside it is its time over trit's, the geometric mean over
layer shapes. The file is written by hand rather than by matplotlib, which needs ten times the bytes. --check writes
nothing and exits with 1 if the file is out of date.
"""
import argparse
import json
import pathlib
import sys

from headline import Panel, panels

ROOT = pathlib.Path(__file__).resolve().parent.parent
LABEL, BAR, FIGURE = 112, 190, 80  # widths in a panel: the library's name, the bar of speed 1, the figure
ROW, TOP, GAP = 20, 30, 22  # heights: a bar with its distance, a panel's title; the distance between panels
WIDTH = 2 * (LABEL + BAR + FIGURE) + 3 * GAP
STYLE = ("text{font:12px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#24292f}"
         ".h{font-weight:600;font-size:13px}.l{text-anchor:end}.n{fill:#57606a}.t{fill:#0969da}.p{fill:#afb8c1}")


def draw_panel(panel: Panel, left: int, top: int) -> list[str]:
    lines = [f'<text class="h" x="{left}" y="{top + 14}">{panel.title}</text>']
    rows = [("trit", 1.0)] + sorted(panel.times.items(), key=lambda item: item[1])
    for index, (name, time) in enumerate(rows):
        y = top + TOP + index * ROW
        width = BAR / time
        lines.append(f'<text class="l" x="{left + LABEL - 6}" y="{y + 11}">{name}</text>')
        lines.append(f'<rect class="{"t" if name == "trit" else "p"}" x="{left + LABEL}" y="{y}" width="{width:.1f}" height="14"/>')
        if name != "trit":
            lines.append(f'<text class="n" x="{left + LABEL + width + 5:.1f}" y="{y + 11}">{time:.1f}x the time</text>')
    return lines


def draw() -> str:
    found = panels(lambda name: json.loads((ROOT / "bench" / "results" / f"{name}.json").read_text()))
    height = 0
    body = []
    for first in range(0, len(found), 2):
        pair = found[first:first + 2]
        for column, panel in enumerate(pair):
            body += draw_panel(panel, GAP + column * (LABEL + BAR + FIGURE + GAP), GAP // 2 + height)
        height += TOP + ROW * (1 + max(len(panel.times) for panel in pair)) + GAP // 2
    height += 34
    body.append(f'<text class="n" x="{GAP}" y="{height - 12}">Speed of one ternary layer, trit = 1 (longer is faster). '
                "Geometric means over layers of 2560 x 2560 and larger: docs/results.</text>")
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
                      "<title>Speed of trit beside other libraries, on a CPU and on a GPU</title>", f"<style>{STYLE}</style>",
                      f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#fff"/>', *body, "</svg>"]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs" / "images" / "speed.svg")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    text = draw()
    if args.check:
        if not args.output.exists() or args.output.read_text() != text:
            print(f"{args.output} is out of date: run bench/plot_speed.py", file=sys.stderr)
            return 1
        return 0
    args.output.write_text(text)
    print(f"plot_speed: {args.output}, {len(text):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
