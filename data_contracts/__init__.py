"""Data contracts: what every table must be, checked by Great Expectations on streamed profiles."""
