"""Sources: one industrial protocol per module, all behind one contract."""

MARKER = "fusion-world-model"
