"""Tables: three regression sets with long-tailed targets, and Adult's two classes."""

import numpy as np

from experiments.datasets import lookup
from experiments.datasets.config import DataConfig
from experiments.datasets.readers import tables
from experiments.datasets.source import Labelled, Source, from_table


def california(config: DataConfig) -> Source:
    path = lookup.find(config, *_below("california_housing.csv", "housing.csv"))
    if path is None:
        raise lookup.missing(
            config,
            "california_housing.csv or housing.csv",
            "curl -LO https://raw.githubusercontent.com/ageron/handson-ml2/master/"
            "datasets/housing/housing.csv",
        )
    names, *rows = tables.rows(path)
    return from_table(tables.encode(rows, names, "median_house_value"), "regression")


def abalone(config: DataConfig) -> Source:
    path = lookup.find(config, *_below("abalone.csv", "abalone.data"))
    if path is None:
        raise lookup.missing(
            config,
            "abalone.csv or abalone.data",
            "curl -LO https://archive.ics.uci.edu/ml/machine-learning-databases/"
            "abalone/abalone.data",
        )
    names = (
        *("sex", "length", "diameter", "height", "whole", "shucked", "viscera"),
        *("shell", "rings"),
    )
    return from_table(tables.encode(tables.rows(path), names, "rings"), "regression")


def bike(config: DataConfig) -> Source:
    """Hourly counts; the two columns that add up to the target are left out."""
    path = lookup.find(config, *_below("bike_sharing_hour.csv", "hour.csv"))
    if path is None:
        raise lookup.missing(
            config,
            "bike_sharing_hour.csv or hour.csv",
            "https://archive.ics.uci.edu/dataset/275/bike+sharing+dataset",
        )
    names, *rows = tables.rows(path)
    table = tables.encode(
        rows,
        names,
        "cnt",
        drop=("instant", "dteday", "casual", "registered"),
        categorical=("season", "mnth", "hr", "weekday", "weathersit"),
    )
    return from_table(table, "regression")


def adult(config: DataConfig) -> Source:
    """Income above 50,000: two classes, 24 % in the rare one."""
    path = lookup.find(config, *_below("adult.data"))
    if path is None:
        raise lookup.missing(
            config,
            "adult.data and adult.test",
            "https://archive.ics.uci.edu/dataset/2/adult",
        )
    names = (
        *("age", "workclass", "fnlwgt", "education", "education-num", "marital"),
        *("occupation", "relationship", "race", "sex", "gain", "loss", "hours"),
        *("country", "income"),
    )
    train = tables.rows(path)
    test = tables.rows(path.with_name("adult.test"))[1:]  # after a remark
    table = tables.encode(train + test, names, "income", drop=("fnlwgt",))
    labels = np.asarray([t.startswith(">") for t in table.target], np.int32)
    n = len(train)
    parts = {
        "train": Labelled(table.features[:n], labels[:n]),
        "test": Labelled(table.features[n:], labels[n:]),
    }
    return Source(parts, 2, ("<=50K", ">50K"))


def _below(*names: str) -> list[str]:
    return [f"{folder}{name}" for folder in ("", "tabular/") for name in names]
