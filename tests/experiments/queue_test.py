"""The queue skips what is finished, resumes what was stopped, reports what failed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import queue

# Stands in for the trainer: every start adds a line to "starts" in the run folder.
# Overrides say what happens; "--hang" waits for a signal the first time.
TRAINER = """
import pathlib, sys, time
run = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
run.mkdir(parents=True, exist_ok=True)
again = (run / "starts").exists()
with open(run / "starts", "a") as file:
    print(*sys.argv[1:], file=file)
if "--fail" in sys.argv:
    sys.exit("it went wrong")
if "--hang" in sys.argv and not again:
    time.sleep(60)
for seed in ("seed0", "seed1") if "--seeds" in sys.argv else (".",):
    (run / seed).mkdir(exist_ok=True)
    for name in ("config.json", "metrics.jsonl", "summary.json", "last.npz"):
        (run / seed / name).write_text("{}")
"""


@pytest.fixture
def command(tmp_path):
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    return [sys.executable, str(script)]


def _rows(tmp_path, text):
    (tmp_path / "rows.txt").write_text(text)
    return queue.read(tmp_path / "rows.txt")


def _starts(out, name):
    return (out / name / "starts").read_text().splitlines()


def test_a_line_is_a_run_with_a_name_of_its_own(tmp_path):
    rows = _rows(
        tmp_path,
        "# first\n\nsmoke  # plain\nsmoke --seed 1 --optimizer.milestones 2 4\n"
        "smoke --init-from {out}/smoke/best.npz --trained classifier\n",
    )
    assert [row.name for row in rows] == [
        "smoke",
        "smoke_seed_1_optimizer.milestones_2_4",
        "smoke_trained_classifier",
    ]
    assert rows[1].words == ["smoke", "--seed", "1", "--optimizer.milestones", "2", "4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smoke\nno-such-preset --seed 1\n", "line 2: no preset 'no-such-preset'"),
        ("smoke --seed 1\nsmoke  --seed  1\n", "line 2: smoke_seed_1 is there twice"),
    ],
)
def test_bad_lines_are_named_before_anything_runs(tmp_path, text, message):
    with pytest.raises(queue.QueueError, match=message):
        _rows(tmp_path, text)


def test_finished_runs_are_skipped_and_failed_ones_reported(tmp_path, command, capsys):
    out, keep = tmp_path / "runs", tmp_path / "records"
    rows = _rows(
        tmp_path,
        "smoke\nsmoke --fail\nsmoke --seeds 2\n"
        "smoke --seed 1 --init-from {out}/smoke/best.npz\n",
    )
    assert queue.run(rows, out, keep, command=command) == 1
    text = capsys.readouterr().out
    assert "4 runs, 0 finished" in text
    assert "[1/4] smoke: done" in text
    assert "[2/4] smoke_fail: FAILED with status 1, see " in text
    assert "it went wrong" in (out / "smoke_fail.log").read_text()
    assert f"--init-from {out}/smoke/best.npz" in _starts(out, "smoke_seed_1")[0]
    kept = {str(path.relative_to(keep)) for path in keep.rglob("*.*")}
    records = ("config.json", "metrics.jsonl", "summary.json")
    folders = ("smoke", "smoke_seeds_2/seed0", "smoke_seeds_2/seed1", "smoke_seed_1")
    assert kept == {f"{folder}/{name}" for folder in folders for name in records}

    assert queue.run(rows, out, keep, command=command) == 1
    assert "4 runs, 3 finished" in capsys.readouterr().out
    assert len(_starts(out, "smoke")) == 1
    assert len(_starts(out, "smoke_fail")) == 2


def test_a_run_with_one_unfinished_seed_is_resumed(tmp_path, command):
    out, rows = tmp_path / "runs", _rows(tmp_path, "smoke --seeds 2\n")
    queue.run(rows, out, command=command)
    (out / "smoke_seeds_2" / "seed1" / "summary.json").unlink()
    queue.run(rows, out, command=command)
    assert len(_starts(out, "smoke_seeds_2")) == 2


def test_records_alone_count_as_finished(tmp_path, command):
    rows = _rows(tmp_path, "smoke\n")
    queue.run(rows, tmp_path / "here", tmp_path / "records", command=command)
    queue.run(rows, tmp_path / "elsewhere", tmp_path / "records", command=command)
    assert not (tmp_path / "elsewhere" / "smoke").exists()


def test_results_from_before_are_kept_too(tmp_path, command):
    rows, keep = _rows(tmp_path, "smoke\n"), tmp_path / "records"
    queue.run(rows, tmp_path / "runs", command=command)
    queue.run(rows, tmp_path / "runs", keep, command=command)
    assert (keep / "smoke" / "summary.json").exists()


def test_a_stopped_queue_stops_its_run_and_resumes_it(tmp_path, command):
    rows, out = _rows(tmp_path, "smoke --hang\nsmoke\n"), tmp_path / "runs"
    code = (
        "import sys; from experiments import queue\n"
        f"argv = [{str(tmp_path / 'rows.txt')!r}, '--out', {str(out)!r}]\n"
        f"sys.exit(queue.main(argv, command={command!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (out / "smoke_hang" / "starts").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert b"the same command continues from here" in text
    assert not (out / "smoke").exists()
    assert queue.run(rows, out, command=command) == 0
    assert len(_starts(out, "smoke_hang")) == 2


def test_the_real_trainer(tmp_path):
    (tmp_path / "rows.txt").write_text("smoke --optimizer.learning-rate 0.02\n")
    out, keep = tmp_path / "runs", tmp_path / "records"
    argv = [str(tmp_path / "rows.txt"), "--out", str(out), "--keep", str(keep)]
    assert queue.main(argv) == 0
    (folder,) = keep.iterdir()
    assert folder.name == "smoke_optimizer.learning-rate_0.02"
    facts = json.loads((folder / "config.json").read_text())
    assert facts["config"]["optimizer"]["learning_rate"] == 0.02
    assert facts["machine"]["out"] == folder.name
    assert str(tmp_path) not in (folder / "config.json").read_text()
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1
    assert (
        "test/balanced_accuracy"
        in json.loads((folder / "summary.json").read_text())["best"]
    )
    assert {path.name for path in Path(folder).iterdir()} == {
        *("config.json", "metrics.jsonl", "summary.json")
    }
