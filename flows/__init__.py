"""The pipeline as Prefect flows, its configuration, and the command line."""

import os

# Before torch is loaded: OpenMP threads that spin while they wait make a shared machine crawl
# (training beside five busy processes on two cores: 41 s spinning, 9 s sleeping).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("DGLBACKEND", "pytorch")
