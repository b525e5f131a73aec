"""Spread a benchmark over a cluster: cells run through joblib, so any backend of joblib will do; here dask with two workers.

It needs `pip install dask distributed`. On a real cluster give `Client` the address of its scheduler; every worker needs
flomi, and the module of an estimator of your own. Stop it and start it again: finished cells are kept.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import joblib
from dask.distributed import Client, LocalCluster

from flomi import bench


def main(folder: Path) -> None:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        joblib.parallel_config(backend="dask"),
    ):
        print("workers:", len(client.scheduler_info()["workers"]))
        outcome = bench.run(
            "independence",
            ["gaussian", "ksg-3"],
            sizes=[500],
            seeds=range(3),
            jobs=None,
            out=folder / "bench.csv",
        )
    print(f"{outcome.cells} cells, {outcome.failed} failed")
    print(bench.markdown(bench.load([outcome.path])))


if __name__ == "__main__":
    with TemporaryDirectory() as name:
        main(Path(name))
