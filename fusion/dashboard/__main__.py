"""``python -m fusion.dashboard``."""

from fusion.dashboard.app import main

main()
