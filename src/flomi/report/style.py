"""Colours and settings of every figure that flomi draws."""

from __future__ import annotations

INK, BLUE, ORANGE, GREY = "#1c2330", "#0072b2", "#d55e00", "#767d88"
# Orange below 0, blue above: colour-blind eyes tell them apart, and grey is the middle on any background.
DIVERGING = ("#a33c00", "#e58a45", "#cfd2d6", "#58a5d8", "#00508c")
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.axisbelow": True,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: small, selectable, in the reader's own font
    "svg.hashsalt": "flomi",  # the same result gives the same bytes
}
