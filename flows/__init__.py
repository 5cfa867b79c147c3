"""The pipeline as Prefect flows, its configuration, and the command line."""

import os

# Before torch is loaded: OpenMP threads that spin while they wait make training several times slower
# on a machine whose cores are shared with other processes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("DGLBACKEND", "pytorch")
