"""Statistics of scores; nothing here knows of runs."""
