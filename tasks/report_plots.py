"""The plots of a run, made from its artifacts."""

from gcl.plots import Plot
from tasks.work import Work


def run_plots(work: Work) -> list[Plot]:
    """Every plot the artifacts of this run give, in the order of the report."""
    return []
