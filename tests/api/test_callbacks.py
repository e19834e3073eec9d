# SPDX-License-Identifier: Apache-2.0
"""Callbacks see a run's events in order, and end no run; loggers write where other tools look."""

import io
import sys
import types

import pytest
from support.tiny_modules import federation, held_out, run

import fedcpsc
from fedcpsc.errors import ConfigError, FederationError


@pytest.fixture(scope="module")
def silos():
    with federation() as made:
        yield made


class Events(fedcpsc.Callback):
    """Notes what it is told."""

    def __init__(self):
        self.seen = []

    def on_start(self, start):
        self.seen.append(("start", start.name, start.silos, start.resumed, start.folder.is_dir()))

    def on_round(self, line):
        self.seen.append(("round", line["round"], line["student_accuracy"]))

    def on_final(self, line):
        self.seen.append(("final", line["share_done"]))

    def on_end(self, result):
        self.seen.append(("end", result.answers_per_silo))

    def on_failure(self, error):
        self.seen.append(("failure", type(error).__name__))


def test_they_are_called_in_order_with_what_happened(silos, tmp_path):
    events = Events()
    made = run(silos, folder=tmp_path / "told", held_out=held_out(), callbacks=[events])
    assert events.seen[0] == ("start", "told", silos.names, False, True)
    assert [event[:2] for event in events.seen[1:4]] == [("round", 1), ("round", 2), ("round", 3)]
    assert [event[0] for event in events.seen[4:]] == ["final"] * 20 + ["end"]
    assert events.seen[3][2] == made.curve[2].student_accuracy
    assert events.seen[-2] == ("final", 1.0)


def test_a_run_that_fails_tells_them_and_raises(tmp_path):
    events = Events()
    with federation(policy={"answers": 5}) as silos, pytest.raises(FederationError, match="no silo answered"):
        run(silos, callbacks=[events])
    assert [event[0] for event in events.seen] == ["start", "failure"]
    assert events.seen[1] == ("failure", "FederationError")


def test_one_that_raises_is_named_in_a_warning_and_called_no_more_while_the_run_and_the_others_go_on(silos):
    class Broken(fedcpsc.Callback):
        calls = 0

        def on_round(self, line):
            Broken.calls += 1
            raise OSError("the disk of the logger is full")

    events = Events()
    with pytest.warns(RuntimeWarning, match=r"Broken\.on_round failed.*(?s:.*)the disk of the logger is full"):
        made = run(silos, callbacks=[Broken(), events], held_out=held_out())
    assert made.finished
    assert Broken.calls == 1
    assert [event[0] for event in events.seen].count("round") == 3


def test_the_progress_line_says_how_far_the_run_is(silos, tmp_path):
    stream = io.StringIO()
    run(silos, folder=tmp_path / "shown", held_out=held_out(), callbacks=[fedcpsc.ProgressLine(stream)])
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("shown: round 1/3, bank 20, answers 20/60, student ")
    assert lines[3].startswith("shown: final fit, bank 60, ")


def test_tensorboard_events_are_those_of_the_command_line(silos, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def events_of(folder):
        read = accumulator.EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
        read.Reload()
        tags = read.Tags()
        still = {tag for tag in tags["scalars"] if "seconds" not in tag and "waiting" not in tag}
        return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in still}, tags["images"]

    run(silos, folder=tmp_path / "callback", callbacks=[fedcpsc.TensorBoardLogger()])
    run(silos, folder=tmp_path / "engine", config={"output.tensorboard": True})
    by_callback, by_engine = events_of(tmp_path / "callback"), events_of(tmp_path / "engine")
    left = {tag for tag in by_callback[0] if "answers_left" in tag}  # the second run found less
    assert {tag: by_callback[0][tag] for tag in by_callback[0].keys() - left} == {
        tag: by_engine[0][tag] for tag in by_engine[0].keys() - left
    }
    assert by_callback[1] == by_engine[1] == ["queries"]
    with pytest.warns(RuntimeWarning, match="writes the same events already"):
        run(silos, config={"output.tensorboard": True}, callbacks=[fedcpsc.TensorBoardLogger()])


@pytest.mark.parametrize(
    ("make", "package"), [(fedcpsc.MlflowLogger, "mlflow"), (fedcpsc.WandbLogger, "wandb")], ids=["mlflow", "wandb"]
)
def test_without_its_package_a_logger_names_the_extra(make, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"pip install 'fedcpsc\[{package}\]'"):
        make()


class FakeWandb(types.ModuleType):
    """What `WandbLogger` uses of wandb."""

    def __init__(self):
        super().__init__("wandb")
        self.runs = []

    class Settings:
        def __init__(self, **kept):
            self.kept = kept

    def init(self, **given):
        made = types.SimpleNamespace(given=given, logged=[], summary={}, exits=[])
        made.log = lambda figures, step: made.logged.append((step, figures))
        made.finish = lambda exit_code=0: made.exits.append(exit_code)
        self.runs.append(made)
        return made


def test_weights_and_biases_is_offline_and_gets_figures_and_settings_without_paths(silos, tmp_path, monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    made = run(silos, folder=tmp_path / "logged", held_out=held_out(), callbacks=[fedcpsc.WandbLogger()])
    (kept,) = wandb.runs
    assert (kept.given["mode"], kept.given["dir"]) == ("offline", str(made.folder))
    assert kept.given["config"]["student.width"] == "4"
    assert str(tmp_path) not in str(kept.given["config"])
    assert [step for step, _ in kept.logged] == list(range(1, 24))
    assert kept.logged[2][1]["run/student_accuracy"] == made.curve[2].student_accuracy
    assert kept.summary["result/student_accuracy"] == made.result.student.accuracy
    assert kept.exits == [0]
    with pytest.raises(ConfigError, match="say offline or online"):
        fedcpsc.WandbLogger(mode="dryrun")


def test_weights_and_biases_is_told_of_a_run_that_failed(tmp_path, monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with federation(policy={"answers": 5}) as silos, pytest.raises(FederationError):
        run(silos, callbacks=[fedcpsc.WandbLogger()])
    assert wandb.runs[0].exits == [1]


class FakeMlflow(types.ModuleType):
    """What `MlflowLogger` uses of mlflow: one store for each address."""

    def __init__(self):
        super().__init__("mlflow")
        self.entities = types.SimpleNamespace(Metric=lambda *given: given)
        self.stores = {}

    def MlflowClient(self, tracking_uri):  # noqa: N802 - mlflow's own name
        return self.stores.setdefault(tracking_uri, _Store())


class _Store:
    def __init__(self):
        self.experiments, self.runs = {}, []

    def get_experiment_by_name(self, name):
        return self.experiments.get(name)

    def create_experiment(self, name, artifact_location):
        self.experiments[name] = types.SimpleNamespace(experiment_id=name, artifact_location=artifact_location)
        return name

    def create_run(self, experiment, tags, run_name):
        info = types.SimpleNamespace(run_id=str(len(self.runs)))
        self.runs.append(types.SimpleNamespace(info=info, tags=tags, params={}, metrics=[], status=None))
        return self.runs[-1]

    def search_runs(self, experiments, query, max_results):
        return [one for one in self.runs if one.tags["fedcpsc.run"] in query][:max_results]

    def update_run(self, number, status):
        self.runs[int(number)].status = status

    set_terminated = update_run

    def log_param(self, number, key, value):
        self.runs[int(number)].params[key] = value

    def log_metric(self, number, key, value):
        self.runs[int(number)].metrics.append((key, value, 0, 0))

    def log_batch(self, number, metrics):
        self.runs[int(number)].metrics += metrics


def test_mlflow_is_kept_in_the_runs_folder_and_goes_on_when_the_run_does(silos, tmp_path, monkeypatch):
    mlflow = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)

    class Stop(fedcpsc.Callback):
        def on_round(self, line):
            raise KeyboardInterrupt

    folder = tmp_path / "logged"
    with pytest.raises(KeyboardInterrupt):
        run(silos, folder=folder, callbacks=[fedcpsc.MlflowLogger(), Stop()])
    ((address, store),) = mlflow.stores.items()
    assert address == f"sqlite:///{folder}/mlflow/mlflow.db"
    assert store.runs[0].status == "FAILED"
    run(silos, folder=folder, existing="resume", callbacks=[fedcpsc.MlflowLogger()])
    (kept,) = store.runs
    assert kept.status == "FINISHED"
    assert kept.params["student.width"] == "4"
    assert str(tmp_path) not in str(kept.params)
    assert [step for name, _, _, step in kept.metrics if name == "run/entropy"] == list(range(1, 24))
    assert ("result/answers_per_silo", 60.0, 0, 0) in kept.metrics


@pytest.mark.filterwarnings("ignore")  # their own
@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_the_real_package_takes_what_it_is_given(silos, tmp_path, package):
    pytest.importorskip(package)
    logger = {"mlflow": fedcpsc.MlflowLogger, "wandb": fedcpsc.WandbLogger}[package]()
    made = run(silos, folder=tmp_path / "logged", held_out=held_out(), callbacks=[logger])
    if package == "wandb":
        assert list((made.folder / "wandb").glob("offline-run-*/*.wandb"))
    else:
        import mlflow

        client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{made.folder}/mlflow/mlflow.db")
        (kept,) = client.search_runs([client.get_experiment_by_name("fedcpsc").experiment_id])
        assert kept.data.metrics["result/student_accuracy"] == made.result.student.accuracy
