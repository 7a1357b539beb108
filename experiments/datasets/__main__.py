"""Describes a data set: ``python -m experiments.datasets --name digits``."""

import tyro

from experiments.datasets import DataConfig, describe, load

if __name__ == "__main__":
    print(describe(load(tyro.cli(DataConfig, description="Describes a data set."))))
