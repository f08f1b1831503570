"""What runs leave in MLflow, and what they do when MLflow is not there. A real MLflow on sqlite."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from wm import worlds
from wm.core import files
from wm.core.errors import UserError
from wm.core.journal import Journal
from wm.models.controller import save_controller
from wm.models.mdnrnn import MDNRNN, MDNConfig, save_mdnrnn
from wm.models.vae import VAE, VAEConfig, save_vae
from wm.pictures import mosaics
from wm.play import agent, rollout
from wm.records import earlier, lineage, measured, provenance, registered_models, run_notes, spool, tracking

PACKAGE = Path(tracking.__file__).parents[2]
FRAMES = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A repository with one database for all tests, since making one takes seconds."""
    root = tmp_path_factory.mktemp("repository")
    for command in ("init -q", "-c user.name=a -c user.email=a@b commit -q --allow-empty -m x"):
        subprocess.run(["git", "-C", str(root), *command.split()], check=True)
    tracking.connect(root)
    return root


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "WM_TRACKING", tracking.PARENT):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tracking, "PATIENCE", 60.0)  # a busy machine is no reason to fail


def track(root, stage="train_vae", experiment="car_racing", inputs=(), **fields):
    return tracking.stage_run(
        stage=stage,
        name="a",
        world="car_racing",
        experiment=experiment,
        inputs=inputs,
        config={"steps": 3, "learning_rate": 1e-3},
        output=Path("runs/a", stage),
        live=Path(".wm/work", stage, "live.jsonl"),
        root=root,
        **fields,
    )


def work(root, stage="train_vae", steps=3):
    """What a stage does: a journal, a summary, a picture."""
    output = root / "runs/a" / stage
    output.mkdir(parents=True, exist_ok=True)
    journal = Journal(output / "metrics.jsonl", root / ".wm/work" / stage / "live.jsonl")
    for step in range(steps):
        metrics = {"train/loss": 10.0 - step, "held_out/loss": float("nan")}
        journal.log(step, metrics, {"steps_per_second": 90.0})
    files.write_json(output / "summary.json", {"held_out/loss": 4.25})
    mosaics.contact_sheet(FRAMES, output / "figures" / "episodes.png")
    return output


def runs(root, **tags):
    client = tracking.connect(root)
    asked = " and ".join(f"tags.`wm.{name}` = '{value}'" for name, value in tags.items())
    return client.search_runs(
        [e.experiment_id for e in client.search_experiments()], asked, order_by=["attributes.start_time ASC"]
    )


def waiting(root):
    return list((root / ".wm/spool").glob("*/run.json"))


def until(condition, seconds=60):
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


def make_data(root):
    folder = root / "runs/a/collect"
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "manifest.json", {"frames": 1000, "shards": [{"sha256": "0"}]})
    return Path("runs/a/collect")


def test_nothing_of_mlflow_is_imported_before_it_is_needed():
    modules = "wm.records.earlier, wm.records.delivery, wm.records.registered_models, wm.release.gate"
    code = f"import sys, {modules}; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE).returncode == 0


def test_a_pipeline_with_a_stage_is_told_whole_and_its_model_registered_once(root):
    data = make_data(root)
    with tracking.pipeline_run(name="a", world="car_racing", experiment="car_racing", root=root) as pipeline:
        for time_ in range(2):  # the second time with the same weights
            with track(root, inputs=[data]):
                output = work(root)
                if time_ == 0:
                    save_vae(VAE(VAEConfig()), "car_racing", output)
        pipeline.add(summary={"score_mean": 5.0}, note="| a | table |")
    assert not waiting(root) and tracking.PARENT not in os.environ
    client = tracking.connect(root)
    (parent,) = runs(root, stage="pipeline")
    first, second = runs(root, stage="train_vae", name="a")
    assert parent.info.status == first.info.status == "FINISHED"
    assert parent.data.metrics == {"score_mean": 5.0}
    assert client.get_experiment(first.info.experiment_id).name == "car_racing"
    assert {run.data.tags["mlflow.parentRunId"] for run in (first, second)} == {parent.info.run_id}
    assert first.data.params == {"steps": "3", "learning_rate": "0.001"}
    losses = client.get_metric_history(first.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in losses] == [(0, 10), (1, 9), (2, 8)]
    assert first.data.metrics["held_out/loss"] == 4.25 and first.data.metrics["steps_per_second"] == 90
    (dataset,) = first.inputs.dataset_inputs
    assert dataset.dataset.name == str(data) and len(dataset.dataset.digest) == 32
    artifacts = {file.path for file in client.list_artifacts(first.info.run_id)}
    assert artifacts >= {"figures", "summary.json", "metrics.jsonl"}
    assert "dvc repro train_vae@a" in first.data.tags["mlflow.note.content"]
    assert first.data.tags[f"wm.input.{data}"] == provenance.digest(root / data)
    assert earlier.run_of(provenance.digest(root / "runs/a/train_vae"), root)["run_id"] == second.info.run_id
    assert earlier.run_of("0" * 64, root) is None
    assert "![Frames of the episodes](get-artifact?run_uuid=" in first.data.tags["mlflow.note.content"]

    (version,) = client.search_model_versions("name = 'car_racing-vae'")
    scored = {m.key: m for m in client.get_logged_model(registered_models.model_id(version)).metrics}["held_out/loss"]
    assert (scored.dataset_name, scored.dataset_digest) == (str(data), dataset.dataset.digest)
    assert version.tags["wm.data"] == provenance.digest(root / data) and version.run_id == first.info.run_id
    assert second.data.tags["wm.version"] == "car_racing-vae/1"


def test_lineage_of_a_registered_model_is_mlflows_alone(root, tmp_path, monkeypatch):
    data = Path("runs/b/collect")
    with track(root, "collect"):
        made = work(root, "collect")
    (root / data).parent.mkdir(parents=True)
    made.rename(root / data)  # an output is known by what is in it, wherever it lies
    with track(root, inputs=[data]):
        save_vae(VAE(VAEConfig(z_size=3)), "car_racing", work(root))
    newest = max(tracking.connect(root).search_model_versions("name = 'car_racing-vae'"), key=lambda v: int(v.version))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri(root))
    monkeypatch.chdir(tmp_path)  # where there is nothing else
    found = lineage.trace(f"models:/car_racing-vae/{newest.version}")
    assert [one.step.address for one in found.steps] == ["collect@a", "train_vae@a"]
    assert found.steps[1].step.inputs == {str(data): found.steps[0].step.output}
    assert found.steps[0].step.output == provenance.digest(root / data)
    commit = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    assert found.again == f"git checkout {commit[:12]} && dvc repro train_vae@a"
    assert "learning_rate 0.001, steps 3" in lineage.text(found)
    with pytest.raises(UserError, match="has no model 'car_racing-vae' @champion"):
        lineage.trace("car_racing-vae@champion")


def test_a_server_that_does_not_answer_is_asked_once_and_its_password_is_not_told(root, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    assert earlier.run_of("0" * 64, root) is earlier.run_of("1" * 64, root) is None
    said = capfd.readouterr().err
    assert said.count("MLflow at http://127.0.0.1:9 could not be asked") == 1 and "secret" not in said


def test_notes_say_the_score_first_and_show_what_was_made():
    summary = {"mean": 853.71, "std": 61.32, "ci95_low": 841.0, "ci95_high": 865.3, "min": 628.1, "max": 914.4}
    run = {
        "stage": "evaluate",
        "name": "a",
        "commit": "c" * 40,
        "dirty": False,
        "inputs": {},
        "output": "runs/a/evaluate",
    }
    note = run_notes.of_run(
        run,
        {"summary": summary | {"episodes": 100, "steps": 9}},
        [("figures/scores.png", "get-artifact?run_uuid=1&path=figures/scores.png")],
        [("best", "#/films/best.mp4")],
    )
    assert "**853.7 ± 61.3** over 100 episodes, 95% interval of the mean 841.0 to 865.3" in note
    assert "![Scores of the test episodes](get-artifact?run_uuid=1&path=figures/scores.png)" in note
    assert "Films: [best](#/films/best.mp4)" in note and "git checkout cccccccccccc\ndvc repro evaluate@a" in note
    assert "\npython -m flows.sweep a\n" in run_notes.of_run({**run, "stage": "sweep"}, {})
    assert run_notes.score({"score.mean": 1.0, "score.std": 2.0}) == "1.0 ± 2.0" and run_notes.score({"kl": 1}) == ""


def test_the_registered_agent_drives_as_in_the_rollouts_and_is_no_pickle(root, monkeypatch):
    import mlflow
    from fastapi.testclient import TestClient
    from mlflow.pyfunc import scoring_server

    folder, world = root / "runs/a/evolve", worlds.get("car_racing")
    vae, memory = VAE(VAEConfig()), MDNRNN(MDNConfig(hidden=16), 32, 3, reads_restart=False)
    layout = agent.layout(world, memory, ("z", "h"))
    save_vae(vae, "car_racing", folder), save_mdnrnn(memory, "car_racing", folder)
    params = np.random.default_rng(1).normal(size=layout.size)
    save_controller(params, layout, "car_racing", ("z", "h"), folder, sampled=True)
    with track(root, stage="evaluate", experiment="smoke", inputs=[Path("runs/a/evolve")]):
        output = work(root, "evaluate")
        tested = {"world": "car_racing", "drawing": "gymnasium", "seeds": [5, 6], "episodes": 2}
        files.write_json(output / "scores.json", tested), files.write_json(output / "summary.json", {"mean": 7.0})
    client = tracking.connect(root)
    (run,) = runs(root, stage="evaluate")
    assert client.get_experiment(run.info.experiment_id).name == "car_racing-smoke"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri(root))  # set_tracking_uri would stay for later tests
    model = mlflow.pyfunc.load_model("models:/smoke-car_racing-agent/1")
    (version,) = client.search_model_versions("name = 'smoke-car_racing-agent'")
    stored = {path.suffix for path in (root / "mlartifacts").rglob("*") if path.is_file()}
    assert ".safetensors" in stored and not stored & {".pkl", ".pickle", ".pt", ".pth"}
    assert version.tags["wm.weights"]
    score = {m.key: m for m in client.get_logged_model(registered_models.model_id(version)).metrics}["mean"]
    (episodes,) = run.inputs.dataset_inputs
    assert (score.value, score.dataset_name) == (7.0, "test episodes of car_racing")
    assert score.dataset_digest == episodes.dataset.digest and json.loads(episodes.dataset.profile)["episodes"] == 2

    loaded, params, _ = agent.load(folder)
    driver = rollout.AgentDriver(loaded, params[None], 2, sampled=True)
    driver.begin(0, (0, 11)), driver.begin(1, (0, 12))
    state = np.zeros((2, 0), np.float32)
    for step in range(3):
        frames = FRAMES[[step, step + 1]]
        request = {"frames": frames, "state": state, "seed": np.array([11, 12]), "step": np.array([step] * 2)}
        reply = model.predict(request)
        np.testing.assert_array_equal(reply["actions"], driver.act(frames, np.arange(2)))
        state = reply["state"]

    # MLflow's scoring server takes the input example that the model names, and the reply is what `predict` gives.
    served = TestClient(scoring_server.init(model))
    example = mlflow.models.convert_input_example_to_serving_input(model.input_example)
    answer = served.post("/invocations", content=example, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    expected = model.predict(model.input_example)
    np.testing.assert_allclose(answer.json()["predictions"]["actions"], expected["actions"])


def test_the_machine_is_looked_at_while_a_stage_runs(root):
    """MLflow's monitor writes to the run that it is given; `EVERY` is too long for a test."""
    client = tracking.connect(root)
    run_id = client.create_run(client.create_experiment("machine")).info.run_id
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured, "EVERY", 0.2)
        monitor = measured.machine(run_id, tracking.uri(root))
    assert until(lambda: monitor._logging_step > 1)
    monitor.finish()
    found = client.get_run(run_id).data.metrics
    assert found["system/system_memory_usage_megabytes"] > 0 and "system/cpu_utilization_percentage" in found


def test_a_dead_server_costs_a_warning_and_what_it_missed_is_sent_with_the_next_run(root, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with track(root, stage="encode"):
        work(root, "encode", steps=1500)
        (entry,) = waiting(root)
        assert until((entry.parent / "trouble.txt").exists)  # the sender has met the server
        began = time.monotonic()
    assert time.monotonic() - began < 6
    warning = capfd.readouterr().err.strip()
    assert warning.startswith("warning: MLflow at http://127.0.0.1:9 did not take")
    assert len(warning.splitlines()) == 1
    assert entry.parent.name in warning
    (root / "runs/a/encode/figures/episodes.png").unlink()  # a later run changes the output and the journal
    (root / ".wm/work/encode/live.jsonl").unlink()

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with track(root, stage="collect"):
        assert until(lambda: not entry.exists())
        work(root, "collect")
    assert not waiting(root)
    (run,) = runs(root, stage="encode")
    client = tracking.connect(root)
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 1500
    (picture,) = client.list_artifacts(run.info.run_id, "figures")
    assert picture.path == "figures/episodes.png"


def test_a_server_that_never_answers_is_not_waited_for(root, monkeypatch, capfd):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(tracking, "PATIENCE", 1.0)
        with track(root, stage="collect"):
            work(root, "collect")
            began = time.monotonic()
        assert time.monotonic() - began < 3
    assert "sent with the next run" in capfd.readouterr().err
    for path in waiting(root):
        spool.Entry(path.parent).delete()


def test_a_stage_that_fails_is_told_as_failed_and_its_error_is_its_own(root):
    with pytest.raises(ValueError, match="the loss is not finite"), track(root, stage="train_mdn"):
        raise ValueError("the loss is not finite")
    (run,) = runs(root, stage="train_mdn")
    assert run.info.status == "FAILED" and "the loss is not finite" in run.data.tags["wm.message"]


def attempt(root, generations, seconds, sigma=0.1, fails=False):
    """A search's run with a line a generation; a stage that goes on writes on the journal that is there."""
    about = dict(stage="evolve", name="paid", world="car_racing", experiment="car_racing", output=Path("runs/paid"))
    live = Path(".wm/work/paid/live.jsonl")
    config = {"generations": generations, "sigma": sigma}
    run = tracking.stage_run(**about, inputs=[], config=config, live=live, root=root)
    with pytest.raises(KeyError) if fails else contextlib.nullcontext(), run:
        journal = Journal(root / "runs/paid/metrics.jsonl", root / live)
        for step, spent in seconds.items():
            journal.log(step, {"best": 1.0}, {"seconds": spent})
        if fails:
            raise KeyError("the time is over")


def test_what_an_output_took_counts_the_attempts_that_it_went_on_from(root):
    with tracking.pipeline_run(name="all", world="car_racing", experiment="car_racing", root=root):
        attempt(root, 9, {1: 900.0}, fails=True)
        attempt(root, 9, {1: 800.0, 2: 800.0})  # another output
        attempt(root, 9, {1: 700.0}, sigma=0.2, fails=True)  # another search
        attempt(root, 9, {1: 10.0, 2: 20.0}, fails=True)
        attempt(root, 3, {2: 25.0, 3: 30.0})
    started, *_, other, stopped, finished = sorted(runs(root, name="paid"), key=lambda run: run.info.start_time)
    found = earlier.run_of(provenance.digest(root / "runs/paid"), root)
    assert found["run_id"] == finished.info.run_id and found["machine"] == provenance.machine()
    lasted = [(run.info.end_time - run.info.start_time) / 1000 for run in (stopped, finished)]
    assert earlier.cost(found, root) == (pytest.approx(sum(lasted)), {1: 10.0, 2: 25.0, 3: 30.0})
    assert started.info.status == other.info.status == "FAILED"


def test_after_kill_9_no_process_is_left_and_the_next_run_tells_what_happened(root):
    code = f"""
    import time
    from pathlib import Path
    from wm.records import tracking
    from wm.core.journal import Journal
    with tracking.stage_run(stage="evolve", name="killed", world="car_racing", experiment="car_racing",
                            config={{}}, inputs=[], output=Path("runs/killed"), live=Path(".wm/work/k/live.jsonl"),
                            root=Path({str(root)!r})):
        Journal(Path(".wm/killed.out"), Path(".wm/work/k/live.jsonl")).log(0, {{"best": 7.0}})
        print("ready", flush=True)
        time.sleep(60)
    """
    stage = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=root,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
    )
    stage.stdout.readline()
    (entry,) = waiting(root)
    sender = next(
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if str(entry.parent).encode() in _read(path)
    )
    stage.send_signal(signal.SIGKILL)
    stage.wait()
    died = time.time()
    assert until(lambda: not Path("/proc", str(sender)).exists(), seconds=10)
    time.sleep(1)  # nobody comes for a while
    with track(root, stage="evolve"):
        work(root, "evolve")
        assert until(lambda: not entry.exists())
    (run,) = runs(root, name="killed")
    assert run.info.status == "KILLED" and run.data.metrics == {"best": 7.0}
    assert run.info.start_time <= run.info.end_time <= 1000 * died


def _read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_journal_that_is_rewritten_is_read_again(tmp_path):
    from wm.records.sender import Sender

    told = []

    class Client:  # counts what would be told: MLflow itself is in the other tests
        def log_batch(self, run_id, metrics):
            told.extend((metric.step, metric.value) for metric in metrics)

    live = tmp_path / "live.jsonl"
    entry = spool.open_entry(tmp_path, {"live": "live.jsonl", "world": "w", "experiment": "e"})
    entry.mark(run_id="r")
    sender, journal = Sender(entry, Client()), Journal(tmp_path / "metrics.jsonl", live)
    for step in range(5):
        journal.log(step, {"x": step})
    sender.pump()
    journal.rewind(2)
    journal.log(3, {"x": 30})
    with live.open("a") as file:
        file.write('{"step": 4, "x"')  # half a line
    sender.pump()
    assert told[-4:] == [(0, 0), (1, 1), (2, 2), (3, 30)]
    entry.lock.release()


def test_a_stages_report_that_is_sent_and_deleted_meanwhile_is_no_mistake(tmp_path):
    pipeline = spool.open_entry(tmp_path, {"kind": "pipeline"})
    stages = [spool.open_entry(tmp_path, {"parent": pipeline.run["key"]}) for _ in range(3)]
    stages[0].close(spool.FINISHED)
    listed = sorted(pipeline.folder.parent.glob("*/run.json"))
    assert [entry.folder for entry in spool.children(pipeline)] == [entry.folder for entry in stages]

    class Deleted(type(listed[0])):  # as the pipeline's sender deletes an entry between the list and the look at it
        def glob(self, pattern):
            found = list(super().glob(pattern))
            spool.Entry(stages[1].folder).delete()
            return iter(found)

    pipeline.folder = Deleted(pipeline.folder.parent) / pipeline.folder.name
    assert [entry.folder.name for entry in spool.children(pipeline)] == [stages[0].folder.name, stages[2].folder.name]


@pytest.mark.parametrize("name", ["run.json", "end.json"])
def test_a_damaged_report_of_an_earlier_run_costs_a_warning_and_no_other_run(tmp_path, name, capfd, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(tracking, "PATIENCE", 3.0)
    earlier_run = spool.open_entry(tmp_path, {"live": None, "output": None, "model": None})
    earlier_run.close(spool.FINISHED)
    earlier_run.lock.release()
    (earlier_run.folder / name).write_text('{"status": "FIN')
    with track(tmp_path):
        work(tmp_path)
    warned = capfd.readouterr().err
    assert f"{earlier_run.folder / name} is not whole JSON" in warned and f"delete {earlier_run.folder}" in warned
    assert (earlier_run.folder / name).exists() and len(list((tmp_path / ".wm/spool").iterdir())) == 2


def test_tracking_can_be_switched_off(tmp_path, monkeypatch):
    monkeypatch.setenv("WM_TRACKING", "off")
    with track(tmp_path), tracking.pipeline_run(name="a", world="w", experiment="e", root=tmp_path) as run:
        run.add(summary={"x": 1.0})
    assert list(tmp_path.iterdir()) == [] and tracking.PARENT not in os.environ


def test_the_digest_of_a_folder_is_that_of_its_names_and_bytes(tmp_path):
    (tmp_path / "a.json").write_text("1")
    before = provenance.digest(tmp_path)
    (tmp_path / "a.json").touch()
    assert provenance.digest(tmp_path) == before
    (tmp_path / "a.json").rename(tmp_path / "b.json")
    assert provenance.digest(tmp_path) != before
    (tmp_path / "manifest.json").write_text(json.dumps({"shards": []}))
    listed = provenance.digest(tmp_path)
    (tmp_path / "shard-00000.parquet").write_bytes(b"large, and listed in the manifest")
    assert provenance.digest(tmp_path) == listed


def test_the_page_opens_on_the_loopback_address_only(root):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = f"from wm.records import tracking; tracking.ui({port}, {str(root)!r})"
    server = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert f"http://127.0.0.1:{port}" in server.stdout.readline().decode()
        assert until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 300)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}") as page:  # and shows models first
            assert "location.replace('#/models?" in page.read().decode()
        sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        listening = [local for _, local, _, state, *_ in sockets if local.endswith(f":{port:04X}") and state == "0A"]
        assert listening == [f"0100007F:{port:04X}"]
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_a_machines_gpu_is_named_beside_its_processor(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_GPUS", tmp_path)
    bare = provenance.machine()
    (tmp_path / "0000:00:05.0").mkdir()
    (tmp_path / "0000:00:05.0" / "information").write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 11\n")
    assert provenance.machine() == f"{bare}, NVIDIA H100 80GB HBM3"
    assert bare.endswith(" cores")
    assert ("(AVX" in bare) == ("avx2" in Path("/proc/cpuinfo").read_text())
