"""Structural attacks on classifiers of graphs: the component-counting benchmark, victims, attackers."""
