"""The pipeline as Prefect flows, its configuration, and the command line."""
