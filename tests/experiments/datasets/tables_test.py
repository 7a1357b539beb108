"""Tables: missing values, categories, and what the target decides."""

import numpy as np
import pytest

from experiments.datasets import DataConfig, load

HOUSING = """longitude,rooms,bedrooms,median_house_value,ocean_proximity
-122,880,129,452600,NEAR BAY
-121,7099,1106,358500,INLAND
-120,1467,,352100,NEAR BAY
-119,1274,235,341300,ISLAND
-118,1627,280,342200,NEAR BAY
"""


def test_missing_values_and_categories(tmp_path):
    rows = HOUSING.splitlines()
    path = tmp_path / "housing.csv"
    path.write_text("\n".join([rows[0], *rows[1:] * 20]))
    splits = load(DataConfig(name="california", path=str(tmp_path)))
    assert splits.num_classes is None
    assert splits.class_counts is None
    assert splits.shots is None
    assert splits.input_shape == (6,)
    x, y = splits.train
    assert x.dtype == y.dtype == np.float32
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(x.std(0), 1, atol=1e-5)
    raw = y * splits.target_std + splits.target_mean
    kinds = splits.indices["train"] % 5
    values = np.asarray([452600, 358500, 352100, 341300, 342200])
    np.testing.assert_allclose(raw, values[kinds], rtol=1e-6)
    np.testing.assert_array_equal(splits.clean_targets, y)
    # The missing number is the training median of the others, here one of two values.
    bedrooms = np.asarray([129, 1106, np.nan, 235, 280])[kinds]
    filled = np.where(np.isnan(bedrooms), np.nanmedian(bedrooms), bedrooms)
    np.testing.assert_allclose(
        x[:, 2], (filled - filled.mean()) / filled.std(), rtol=1e-4, atol=1e-5
    )


def test_bike_leaves_out_what_adds_up_to_the_target(tmp_path):
    header = "instant,dteday,season,yr,mnth,hr,holiday,weekday,workingday,weathersit,"
    header += "temp,atemp,hum,windspeed,casual,registered,cnt"
    rng = np.random.default_rng(0)
    lines = [header]
    for i in range(40):
        a, b = rng.integers(0, 9, 2)
        lines.append(
            f"{i},2011-01-01,{i % 4 + 1},0,1,{i % 24},0,6,0,1,.2,.3,.8,0,"
            f"{a},{b},{a + b}"
        )
    (tmp_path / "hour.csv").write_text("\n".join(lines))
    splits = load(DataConfig(name="bike", path=str(tmp_path)))
    # yr, holiday, workingday, 4 weather numbers; 4 + 1 + 24 + 1 + 1 levels
    assert splits.input_shape == (7 + 31,)


def test_abalone_has_three_sexes(tmp_path):
    rows = [f"{'MFI'[i % 3]},.4,.3,.1,.5,.2,.1,.1,{i % 9 + 1}" for i in range(60)]
    (tmp_path / "abalone.data").write_text("\n".join(rows))
    splits = load(DataConfig(name="abalone", path=str(tmp_path)))
    assert splits.input_shape == (3 + 7,)
    raw = splits.test.targets * splits.target_std + splits.target_mean
    np.testing.assert_allclose(raw, splits.indices["test"] % 9 + 1, rtol=1e-5)


def test_adult_has_its_own_test_part(tmp_path):
    row = "{}, {}, 7, HS, 9, Never, {}, Own, White, Male, 0, 0, 40, ?, {}"
    train = [
        row.format(i, "Private", "Sales", "<=50K" if i % 4 else ">50K")
        for i in range(40)
    ]
    test = [
        row.format(i, "?", "Tech", "<=50K." if i % 2 else ">50K.") for i in range(10)
    ]
    (tmp_path / "adult.data").write_text("\n".join(train) + "\n\n")
    (tmp_path / "adult.test").write_text("|1x3 Cross validator\n" + "\n".join(test))
    splits = load(DataConfig(name="adult", path=str(tmp_path), val_size=0))
    np.testing.assert_array_equal(splits.train.targets, np.arange(40) % 4 == 0)
    np.testing.assert_array_equal(splits.test.targets, np.arange(10) % 2 == 0)
    assert splits.class_names == ("<=50K", ">50K")
    # age, education-num, gain, loss, hours; one level each of education, marital,
    # relationship, race, sex, workclass; two of occupation; country is all missing
    assert splits.input_shape == (5 + 8,)


def test_csv_target_decides_the_task(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(HOUSING + HOUSING.split("\n", 1)[1] * 9)
    config = dict(name="csv", path=str(path))
    assert load(DataConfig(**config)).class_names == ("INLAND", "ISLAND", "NEAR BAY")
    price = load(DataConfig(target="median_house_value", **config))
    assert price.num_classes is None
    assert price.input_shape == (6,)
    classes = load(
        DataConfig(target="longitude", task="classification", drop=("rooms",), **config)
    )
    assert classes.class_names == ("-122", "-121", "-120", "-119", "-118")
    assert classes.input_shape == (2 + 3,)
    with pytest.raises(ValueError, match="No column 'price' among longitude, rooms"):
        load(DataConfig(target="price", **config))
    with pytest.raises(ValueError, match="task must be classification"):
        load(DataConfig(task="regression", **config))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", r"row 2 has 1 values, expected 2 \(a, b\)"),
        ("a,b\n" + "".join(f"t{i},1\n" for i in range(200)), "'a' has 200 different"),
        ("a,b\n1,2\n3,\n", "row 2 has no 'b', which is the target"),
        ("b\n2\n3\n", "no column beside the target 'b'"),
    ],
)
def test_bad_tables(tmp_path, text, message):
    (tmp_path / "own.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        load(DataConfig(name="csv", path=str(tmp_path / "own.csv")))
