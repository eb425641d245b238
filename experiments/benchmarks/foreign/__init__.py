"""Programs for the peers' virtual environment (`peers.py`): of this project they import `timing` alone."""
