"""Colours of groups that colour-blind people tell apart: Okabe and Ito's eight, black last."""

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000")
PUBLISHED = "#767676"  # grey, of what others have measured
