"""Pipeline stages: the only place where Prefect, Dask, gcl and the data contracts meet."""
