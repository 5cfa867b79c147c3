"""The bidirectional approximate filter: push from the features, walks from the rows that are needed."""

from gcl.bidirectional.push import Pushed, push_filter, update_filter

__all__ = ["Pushed", "push_filter", "update_filter"]
