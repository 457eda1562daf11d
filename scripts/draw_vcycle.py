#!/usr/bin/env python3
"""Draws docs/vcycle.svg: one MGIC block as a V-cycle over its channels.

    scripts/draw_vcycle.py [FILE]

Every number in the picture is computed here by the block's own rules (layers/mgic/hierarchy.h), and matrices and bars
are drawn to scale: 2 pixels a channel in a coupling pattern, 4 in a row of channels.
"""
import pathlib
import sys

CHANNELS, GROUP_SIZE, COARSEST = 64, 16, 16
KERNEL = 3

INK, SOFT, FAINT, PAPER, EDGE = "#22303c", "#5b6b79", "#c9d1d8", "#fcfcfa", "#d9dee2"
DENSE = "#8a96a1"
PALETTE = ["#1f9e8f", "#3b82c4", "#8a63b8", "#d45d79"]  # the four groups of level 0; coarser levels mix them
SANS = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
SERIF = "Georgia, 'Times New Roman', 'DejaVu Serif', serif"

WIDTH, HEIGHT = 1340, 770
BAR, CELL, DOT = 36, 4, 2  # height of a row of channels; pixels a channel in a row and in a matrix

out = []


# ---- The block's rules ----

def hierarchy(channels):
    """[(width, groups)], rule `reach`: as layers/mgic/hierarchy.cpp for a smoother of the level's own width."""
    widths = [channels]
    while widths[-1] > COARSEST:
        widths.append(widths[-1] // 2)
    levels = []
    for fine, coarse in zip(widths, widths[1:]):
        groups = max(fine // GROUP_SIZE, 1)
        while fine % groups or coarse % groups:
            groups -= 1
        levels.append((fine, groups))
    return levels + [(widths[-1], 1)]


def weights(channels):
    """Convolution weights of the block with the basic smoother, and of its dense twin."""
    levels = hierarchy(channels)
    total = sum(2 * KERNEL**2 * w * (w // g) for w, g in levels)
    total += sum(2 * w * c // g for (w, g), (c, _) in zip(levels, levels[1:]))
    return total, 2 * KERNEL**2 * channels**2


# ---- Drawing ----

def mix(colours):
    parts = [[int(c[i:i + 2], 16) for i in (1, 3, 5)] for c in colours]
    return "#" + "".join(f"{round(sum(p) / len(parts)):02x}" for p in zip(*parts))


def colours_of(groups):
    share = len(PALETTE) // groups
    return [mix(PALETTE[g * share:(g + 1) * share]) for g in range(groups)]


def add(tag, content=None, **attributes):
    text = "".join(f' {k.replace("_", "-")}="{v:g}"' if isinstance(v, float) else f' {k.replace("_", "-")}="{v}"'
                   for k, v in attributes.items())
    out.append(f"  <{tag}{text}/>" if content is None else f"  <{tag}{text}>{content}</{tag}>")


def text(x, y, content, size=16, fill=INK, anchor="start", weight="normal", family=None):
    extra = {} if family is None else {"font_family": family}
    if weight != "normal":
        extra["font_weight"] = weight
    add("text", content, x=x, y=y, font_size=size, fill=fill, text_anchor=anchor, **extra)


def var(letter, subscript, size):
    """A letter with a subscript whose baseline returns exactly."""
    drop = round(0.22 * size, 1)
    slant = ' font-style="italic"' if str(subscript).startswith("l") else ""
    return (f'<tspan font-style="italic" font-family="{SERIF}">{letter}</tspan>'
            f'<tspan font-family="{SERIF}" dy="{drop}" font-size="{round(0.72 * size, 1)}"{slant}>{subscript}</tspan>'
            f'<tspan dy="{-drop}">\u200b</tspan>')


def row_of_channels(cx, cy, channels, groups):
    """The channels of a feature map, coloured by group."""
    x0, y0, per = cx - channels * CELL / 2, cy - BAR / 2, channels // groups
    for g, colour in enumerate(colours_of(groups)):
        for i in range(per):
            add("rect", x=x0 + (g * per + i) * CELL + 0.4, y=y0, width=CELL - 0.8, height=BAR, fill=colour)
        if g:
            add("rect", x=x0 + g * per * CELL - 1.2, y=y0 - 1, width=2.4, height=BAR + 2, fill=PAPER)


def funnel(x_top, y_top, wide_top, x_bottom, y_bottom, wide_bottom, groups):
    """A transfer, group by group: what of one level feeds what of the other."""
    for g, colour in enumerate(colours_of(groups)):
        a, b = [x_top + wide_top * CELL * (k / groups - 0.5) for k in (g, g + 1)]
        c, d = [x_bottom + wide_bottom * CELL * (k / groups - 0.5) for k in (g, g + 1)]
        add("path", d=f"M{a + 1:g},{y_top:g} L{b - 1:g},{y_top:g} L{d - 1:g},{y_bottom:g} L{c + 1:g},{y_bottom:g} Z",
            fill=colour, opacity=0.34)


def matrix(x, cy, channels, groups):
    """The coupling pattern: row = output channel, column = input channel, coloured where there is a weight."""
    side, y = channels * DOT, cy - channels * DOT / 2
    add("rect", x=x, y=y, width=side, height=side, fill="#ffffff")
    block = side / groups
    for g, colour in enumerate(colours_of(groups)):
        add("rect", x=x + g * block, y=y + g * block, width=block, height=block, fill=colour)
    grid = "".join(f"M{x:g},{y + i:g} h{side} M{x + i:g},{y:g} v{side} " for i in range(DOT * 4, side, DOT * 4))
    add("path", d=grid, stroke="#ffffff", stroke_width=0.5, opacity=0.7, fill="none")
    add("rect", x=x, y=y, width=side, height=side, fill="none", stroke=SOFT, stroke_width=1.2)


def line(points, dashed=False, arrow=True):
    d = "M" + " L".join(f"{x:g},{y:g}" for x, y in points)
    extra = {"stroke_dasharray": "6 5"} if dashed else {}
    if arrow:
        extra["marker_end"] = "url(#tip)"
    add("path", d=d, fill="none", stroke=INK, stroke_width=1.7, stroke_linejoin="round", **extra)


def knot(x, y, sign):
    add("circle", cx=x, cy=y, r=13, fill="#ffffff", stroke=INK, stroke_width=1.7)
    bars = f"M{x - 6:g},{y:g} h12" + (f" M{x:g},{y - 6:g} v12" if sign == "+" else "")
    add("path", d=bars, stroke=INK, stroke_width=1.9, fill="none")


def norm(x, y):
    add("rect", x=x - 16, y=y - 13, width=32, height=26, rx=7, fill="#ffffff", stroke=INK, stroke_width=1.7)
    text(x, y + 6, "N", 17, anchor="middle", family=SERIF)


def label(x, y, title, lines, anchor="start"):
    text(x, y, title, 21, anchor=anchor)
    for i, content in enumerate(lines):
        text(x, y + 21 + 19 * i, content, 15, SOFT, anchor)


# ---- The picture ----

def v_cycle():
    levels = hierarchy(CHANNELS)
    ys = [185, 425, 655]
    left = [326, 350, 374]      # centres of the rows of channels on the way down
    right = [1178, 800, 570]    # … and on the way up
    plus = [800, 570]           # ⊕ of level l stands above the row of level l + 1
    smoother = [862, 624, 464]  # left edges of the matrices

    for l in range(2):
        (w, g), (c, _) = levels[l], levels[l + 1]
        # Down: the restriction.
        end = ys[l + 1] - BAR / 2 - 24
        funnel(left[l], ys[l] + BAR / 2 + 5, w, left[l + 1], end, c, g)
        line([(left[l + 1], end + 1), (left[l + 1], end + 21)])
        middle = (ys[l] + end) / 2
        label(left[l] - w * CELL / 2 + 18 - 14 * l, middle - 8, var("R", l, 21),
              ["restriction", f"{w} \u2192 {c}, {g} groups"], "end")
        # Across: x_l goes to the sum of its level, r_l to the difference under the prolongation.
        line([(left[l] + w * CELL / 2 + 6, ys[l]), (plus[l] - 15, ys[l])])
        text((left[l] + w * CELL / 2 + plus[l]) / 2, ys[l] - 10, var("x", l, 19), 19, anchor="middle")
        low = ys[l + 1] - 56
        start = left[l + 1] + c * CELL / 2 + 22
        line([(start, ys[l + 1]), (start, low), (right[l + 1] - 15, low)], dashed=True)
        add("circle", cx=start, cy=ys[l + 1], r=3.2, fill=INK)
        text(start + 26, low - 10, var("r", l, 19), 19, anchor="middle")
        # Up: the correction.
        line([(right[l + 1], ys[l + 1] - BAR / 2 - 3), (right[l + 1], low + 15)])
        knot(right[l + 1], low, "-")
        bottom, top = low - 34, low - 84
        line([(right[l + 1], low - 13), (right[l + 1], bottom + 1)])
        funnel(right[l + 1], top, w, right[l + 1], bottom, c, g)
        line([(right[l + 1], top - 1), (right[l + 1], ys[l] + 15)])
        norm(plus[l], top - 30)
        knot(plus[l], ys[l], "+")
        label(right[l + 1] + w * CELL / 2 + 16, top + 14, var("P", l, 21), ["prolongation", f"{c} \u2192 {w}, {g} groups"])

    for l, (w, g) in enumerate(levels):
        row_of_channels(left[l], ys[l], w, g)
        row_of_channels(right[l], ys[l], w, g)
        begin = plus[l] + 13 if l < 2 else left[l] + w * CELL / 2 + 6
        line([(begin, ys[l]), (smoother[l] - 5, ys[l])])
        matrix(smoother[l], ys[l], w, g)
        line([(smoother[l] + w * DOT + 3, ys[l]), (right[l] - w * CELL / 2 - 6, ys[l])])
        names = [var("x", l, 21), f"{w} channels", f"{g} groups of {w // g}" if g > 1 else "1 group"]
        label(left[l] - w * CELL / 2 - 16, ys[l] - 14, names[0], names[1:], "end")
        text(smoother[l], ys[l] + w * DOT / 2 + 24,
             var("B", l, 19) + (f'<tspan font-size="15" fill="{SOFT}" dx="9">{g} blocks of {w // g} \u00d7 {w // g}</tspan>'
                                if g > 1 else
                                f'<tspan font-size="15" fill="{SOFT}" dx="9">fully coupled: every channel meets every other'
                                '</tspan>'), 19)
    line([(right[0], ys[0] - BAR / 2 - 4), (right[0], ys[0] - BAR / 2 - 34)])
    text(right[0] + 14, ys[0] - BAR / 2 - 18, "output", 15, SOFT)
    line([(left[0], ys[0] - BAR / 2 - 36), (left[0], ys[0] - BAR / 2 - 6)])
    text(left[0] + 14, ys[0] - BAR / 2 - 18, "input", 15, SOFT)


def costs(x, y):
    """The dense pattern beside the V-cycle's, and how both grow with the width."""
    add("rect", x=x, y=y, width=1310 - x, height=HEIGHT - 30 - y, rx=12, fill="#f3f5f6", stroke=EDGE)
    side = CHANNELS * DOT
    mgic, dense = weights(CHANNELS)
    add("rect", x=x + 22, y=y + 22, width=side, height=side, fill=DENSE)
    grid = "".join(f"M{x + 22:g},{y + 22 + i:g} h{side} M{x + 22 + i:g},{y + 22:g} v{side} "
                   for i in range(DOT * 4, side, DOT * 4))
    add("path", d=grid, stroke="#ffffff", stroke_width=0.5, opacity=0.7, fill="none")
    add("rect", x=x + 22, y=y + 22, width=side, height=side, fill="none", stroke=SOFT, stroke_width=1.2)
    tx = x + 22 + side + 18
    text(tx, y + 40, "A dense block", 17, weight="bold")
    for i, content in enumerate([f"couples {CHANNELS} \u00d7 {CHANNELS} channels:", f"{dense:,} weights",
                                 f"this V-cycle: {mgic:,}"]):
        text(tx, y + 64 + 21 * i, content, 15, SOFT)

    top = y + 22 + side + 34
    text(x + 22, top, "Convolution weights of one block", 15, INK, weight="bold")
    text(x + 22, top + 20, "by width, 3 \u00d7 3 kernels:", 13, SOFT)
    for lx, colour, name in [(x + 190, mix(PALETTE[:2]), "V-cycle"), (x + 268, DENSE, "dense")]:
        add("rect", x=lx, y=top + 10, width=11, height=11, fill=colour)
        text(lx + 17, top + 20, name, 13, SOFT)
    widths = [64, 128, 256, 512]
    longest = 1310 - x - 22 - 70 - 92
    for i, c in enumerate(widths):
        mgic, dense = weights(c)
        ry = top + 36 + 31 * i
        text(x + 56, ry + 17, c, 15, INK, "end")
        for k, (value, colour, ink) in enumerate([(mgic, mix(PALETTE[:2]), INK), (dense, DENSE, SOFT)]):
            length = max(2.0, longest * value / weights(widths[-1])[1])
            add("rect", x=x + 68, y=ry + 13 * k, width=round(length, 1), height=11, fill=colour)
            text(x + 68 + round(length, 1) + 7, ry + 13 * k + 10, f"{value:,}", 12, ink)


def main():
    v_cycle()
    costs(904, 385)
    text(30, 46, "One MGIC block: a V-cycle over the channels", 25, weight="bold")
    text(30, 72, f"{CHANNELS} channels, groups of {GROUP_SIZE}, fully coupled at {COARSEST}; "
         "down with restrictions, up with corrections", 16, SOFT)
    formula = (var("x", "l", 20) + " \u2190 " + var("B", "l", 20) + "( " + var("x", "l", 20) + " + N( " +
               var("P", "l", 20) + "( " + var("x", "l+1", 20) + " \u2212 " + var("r", "l", 20) + " )))")
    text(30, HEIGHT - 32, formula, 20, family=SERIF)
    text(386, HEIGHT - 33, "N: batch normalisation", 15, SOFT)

    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
           f'font-family="{SANS}" role="img" aria-labelledby="title description">',
           '  <title id="title">One MGIC block: a V-cycle over the channels</title>',
           '  <desc id="description">Channels are restricted in groups from 64 to 32 to 16, smoothed with full '
           'coupling on the coarsest level, and corrected on the way up.</desc>',
           '  <defs><marker id="tip" viewBox="0 0 10 10" refX="8.5" refY="5" markerWidth="6.5" markerHeight="6.5" '
           f'orient="auto"><path d="M0,0.8 L9.5,5 L0,9.2 Z" fill="{INK}"/></marker></defs>',
           f'  <rect x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="16" fill="{PAPER}" stroke="{EDGE}" '
           'stroke-width="2"/>', *out, "</svg>", ""]
    target = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parents[1] / "docs/vcycle.svg"
    target.write_text("\n".join(svg), encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main()
