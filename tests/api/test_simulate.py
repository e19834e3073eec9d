# SPDX-License-Identifier: Apache-2.0
"""Modules become silos with a real policy and a real ledger; what does not fit is refused, and nothing written."""

import gc

import numpy as np
import pytest
import torch
from support.tiny_modules import CLASSES, SHAPE, Brightness, federation, modules, run
from torch import nn

import fedcpsc
from fedcpsc.errors import ConfigError, FederationError, ManifestError, PolicyError, SiloError, TeacherError
from fedcpsc.gatekeeper.opening import open_gatekeeper
from fedcpsc.gatekeeper.policy import load_policy, save_policy
from fedcpsc.ledger.ledger import LEDGER_FILE
from fedcpsc.protocol.messages import Answer, AnswerForm, Query
from fedcpsc.teachers.manifest import load_manifest

IMAGES = np.random.default_rng(0).integers(0, 256, (7, *SHAPE)).astype(np.uint8)


def ask(silos, silo=0, number=0):
    """What a silo answers, [7, K]."""
    answer = silos.members[silo].gatekeeper.answer(Query(f"{number:032x}", AnswerForm.PROBABILITIES, IMAGES))
    assert isinstance(answer, Answer)
    return answer.values / 255


def test_a_silo_answers_what_its_module_gives_and_its_ledger_is_charged(tmp_path):
    own = modules()
    with federation(models=own, folder=tmp_path / "silos") as silos:
        answers = ask(silos, 1)
        with torch.no_grad():
            expected = torch.softmax(own[1](torch.from_numpy(IMAGES) / 255), 1).numpy()
        np.testing.assert_allclose(answers, expected, atol=1 / 255)
        assert [silo.answers_left for silo in silos.silos] == [20_000, 20_000 - 7, 20_000]
        assert silos.names == ("silo-0", "silo-1", "silo-2")
        assert silos.class_names == tuple(CLASSES)
        assert load_manifest(tmp_path / "silos/1").class_names == tuple(CLASSES)


def test_what_its_owner_does_with_the_module_later_answers_nobody_and_the_module_is_left_as_it_was():
    own = [Brightness(), nn.Sequential(Brightness(), nn.Dropout(0.5))]
    own[1].train()
    with federation(models=own) as silos:
        before = ask(silos)
        with torch.no_grad():
            own[0].sharp.fill_(0.0)
        np.testing.assert_array_equal(ask(silos, number=1), before)
        assert own[1].training
        assert all(parameter.requires_grad for module in own for parameter in module.parameters())


def test_a_budget_that_is_spent_refuses_and_a_run_ends_with_what_there_is():
    with federation(policy={"answers": 30}) as silos:
        result = run(silos).result
        assert [silo.answers for silo in result.silos] == [20, 20, 20]
        assert result.silos[0].refusals == {"budget": 1}
        assert [silo.answers_left for silo in silos.silos] == [10, 10, 10]


def test_the_same_modules_in_a_kept_folder_go_on_with_the_same_ledger(tmp_path):
    with federation(folder=tmp_path) as silos:
        ask(silos)
    with federation(folder=tmp_path) as silos:
        assert silos.silos[0].answers_left == 20_000 - 7
        assert silos.silos[0].notes == ()
        assert not (tmp_path / "0/past").exists()


def test_another_module_of_the_same_name_is_a_teacher_that_was_replaced(tmp_path):
    with federation(folder=tmp_path) as silos:
        ask(silos)
        first = silos.members[0].manifest
    with federation(models=[Brightness(1.0), *modules()[1:]], folder=tmp_path) as silos:
        ask(silos, number=1)
        assert silos.silos[0].answers_left == 20_000 - 14
        (note,) = silos.silos[0].notes
        assert "the teacher was replaced" in note
        second = silos.members[0].manifest
        rows = list(silos.members[0].gatekeeper.ledger.export())
    kept = load_manifest(tmp_path / f"0/past/teacher-{first.weights_sha256[:12]}")
    assert kept.weights_sha256 == first.weights_sha256 != second.weights_sha256
    models = [row["model"] for row in rows if row["kind"] == "charged"]
    assert models == [first.weights_sha256, second.weights_sha256]


def test_another_normalisation_is_another_teacher_with_the_same_weights(tmp_path):
    with federation(folder=tmp_path) as silos:
        before = ask(silos)
    with federation(folder=tmp_path, normalisation="half") as silos:
        assert np.abs(ask(silos, number=1) - before).max() > 0.01
        assert silos.silos[0].answers_left == 20_000 - 14


def test_a_folder_of_another_silo_is_refused_and_left_alone(tmp_path):
    federation(folder=tmp_path, names=["north", "south", "west"]).close()
    before = sorted(path.name for path in (tmp_path / "0").iterdir())
    with pytest.raises(SiloError, match="is the silo 'north'"):
        federation(folder=tmp_path)
    (tmp_path / "other/0").mkdir(parents=True)
    (tmp_path / "other/0/notes.txt").write_text("mine")
    with pytest.raises(SiloError, match=r"holds notes\.txt, and nothing is overwritten"):
        federation(folder=tmp_path / "other")
    assert sorted(path.name for path in (tmp_path / "0").iterdir()) == before


def test_a_policy_that_was_given_replaces_one_that_was_given_and_none_that_its_owner_edited(tmp_path):
    federation(folder=tmp_path, policy={"answers": 100}).close()
    path = tmp_path / "0/policy.yaml"
    federation(folder=tmp_path, policy={"answers": 50}).close()
    assert load_policy(path).answers == 50
    federation(folder=tmp_path).close()
    assert load_policy(path).answers == 50
    save_policy(load_policy(path).model_copy(update={"answers": 40}), path)
    with federation(folder=tmp_path, policy={"answers": 90}) as silos:
        assert load_policy(path).answers == 40
        assert "edited by its owner" in silos.silos[0].notes[0]
        assert silos.silos[1].answers_left == 90
    federation(folder=tmp_path).close()
    assert load_policy(path).answers == 40


def test_more_answers_than_the_ledger_began_with_are_said_to_be_a_matter_of_the_ledger(tmp_path):
    federation(folder=tmp_path, policy={"answers": 10}).close()
    with federation(folder=tmp_path, policy={"answers": 20}) as silos:
        assert silos.silos[0].answers_left == 10
        assert "fedcpsc ledger raise" in silos.silos[0].notes[0]


def test_a_temporary_federation_leaves_nothing_and_a_closed_one_answers_no_more():
    silos = federation()
    folder = silos.folder
    assert (folder / "0" / LEDGER_FILE).exists()
    silos.close()
    silos.close()
    assert not folder.exists()
    assert "closed" in repr(silos)
    with pytest.raises(SiloError, match="is closed"):
        run(silos)
    silos = federation()
    folder = silos.folder
    del silos
    gc.collect()
    assert not folder.exists()


def test_another_process_that_opens_the_folder_is_told_where_the_teacher_lives(tmp_path):
    federation(folder=tmp_path).close()
    with pytest.raises(ManifestError, match=r"fedcpsc\.simulate"):
        open_gatekeeper(tmp_path / "0")


def test_a_silos_folder_is_a_model_beside_modules_with_its_own_policy_and_name(tmp_path):
    from support.silo_folder import make_folder

    make_folder(tmp_path / "north")
    torch.manual_seed(4)  # by chance all its logits lie in [0, 1], and then look like sigmoids
    own = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    with fedcpsc.simulate([tmp_path / "north", own], normalisation="none") as silos:
        assert [(silo.name, silo.answers_left) for silo in silos.silos] == [("north", 100), ("silo-1", 20_000)]
        assert silos.members[0].folder == tmp_path / "north"
        assert ask(silos).shape == ask(silos, 1).shape == (7, 2)
    with pytest.raises(ConfigError, match="the folder of 'north'"):
        fedcpsc.simulate([tmp_path / "north", own], normalisation="none", names=["south", "west"])
    with pytest.raises(ManifestError, match="cannot be read"):
        fedcpsc.simulate([tmp_path / "nowhere"])


@pytest.mark.parametrize(("outputs", "meaning"), [(None, True), ("probabilities", True), ("logits", False)])
def test_a_softmax_inside_the_module_is_seen_by_a_trial_unless_its_owner_says_otherwise(outputs, meaning):
    soft = nn.Sequential(Brightness(), nn.Softmax(1))
    with federation(models=[soft], outputs=outputs) as silos:
        assert silos.members[0].manifest.probabilities is meaning
        assert (ask(silos).max() > 0.6) == meaning  # a softmax of probabilities is sure of nothing


class Raises(nn.Module):
    def forward(self, x):
        raise KeyError("a layer")


class TwoOutputs(nn.Module):
    def forward(self, x):
        return x.mean((1, 2, 3)), x


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), "silo-0: classes=3: the module has 4 outputs"),
        (nn.Sequential(nn.Flatten(), nn.Linear(100, 3)), "check its input's shape"),
        (nn.Sequential(Brightness(), nn.Sigmoid()), "do not sum to 1"),
        (Raises(), "KeyError"),
        (TwoOutputs(), "gives tuple"),
        (nn.Conv2d(1, 3, 1), "must be .8, K"),
    ],
    ids=["classes", "shape", "shares", "raises", "tuple", "pixels"],
)
def test_a_module_that_does_not_fit_is_refused_and_nothing_is_left(tmp_path, model, message):
    with pytest.raises(TeacherError, match=message):
        federation(models=[model], folder=tmp_path / "silos")
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ({"models": []}, ConfigError, None),
        ({"classes": None}, ConfigError, "name the classes"),
        ({"classes": ["a", "b", "B"]}, ConfigError, "differs from 'b' by case"),
        ({"classes": 1}, ConfigError, "at least two"),
        ({"image_shape": None}, ConfigError, "image_shape"),
        ({"image_shape": (8, 8)}, ConfigError, "image_shape"),
        ({"normalisation": None}, ConfigError, "none: mean 0 and std 1"),
        ({"normalisation": (125.0, 50.0)}, ConfigError, "divide by 255"),
        ({"normalisation": "imagenet"}, ConfigError, "is of 3 channels"),
        ({"outputs": "scores"}, ConfigError, "say logits or probabilities"),
        ({"names": ["a", "a", "b"]}, ConfigError, "name of two silos"),
        ({"names": ["a"]}, ConfigError, "one for each of 3"),
        ({"policy": {"answer": 5}}, PolicyError, "answers"),
        ({"policy": [{}, {}]}, ConfigError, "one for each of 3"),
        ({"policy": {"share_class_counts": True}}, PolicyError, "not known"),
        ({"class_counts": [[1, 2]] * 3}, ConfigError, "must be 3 counts"),
        ({"models": [object()]}, ConfigError, "neither a torch module nor the folder"),
        ({"classes": [["a", "b", "c"], ["d", "e", "D"], ["a", "b", "c"]]}, ConfigError, "differs from"),
        ({"classes": [["a", "b", "c"], ["A", "b", "c"], ["a", "b", "c"]]}, FederationError, "A"),
    ],
)
def test_what_is_said_wrong_or_not_said_is_explained_and_nothing_is_written(tmp_path, said, error, message):
    if said.get("models") == []:
        with pytest.raises(error, match="must be a list with a model for each silo"):
            fedcpsc.simulate([])
        return
    with pytest.raises(error, match=message):
        federation(**said, folder=tmp_path / "silos")
    if error is not FederationError:
        assert not list(tmp_path.rglob("ledger*"))


def test_networks_of_this_project_need_no_normalisation_and_bring_their_shape():
    from fedcpsc.models.registry import build_classifier

    networks = [build_classifier("lenet5", 3, SHAPE, seed=seed) for seed in range(2)]
    with fedcpsc.simulate(networks, classes=CLASSES) as silos:
        assert silos.image_shape == SHAPE
        assert silos.members[0].manifest.normalisation.mean == (0.5,)


def test_models_may_know_different_classes():
    names = [["dark", "grey", "bright"], ["dark", "grey", "glaring"], ["grey", "dark", "bright"]]
    with federation(classes=names) as silos:
        assert silos.class_names == ("dark", "grey", "bright", "glaring")
        bank = run(silos).bank
        assert bank.answers["silo-1"].shape == (60, 4)
        assert not bank.answers["silo-1"][:, 2].any()


def test_a_promise_of_differential_privacy_is_kept_or_refused():
    noisy = {"mechanism": {"kind": "noise_only", "epsilon": 20, "delta": 1e-4, "sigma": 20}}
    with pytest.raises(PolicyError, match="number of this teacher's records is not known"):
        federation(policy=noisy)
    with federation(policy=noisy, class_counts=[[300, 300, 300]] * 3) as silos:
        status = silos.silos[0]
        assert (status.dp, status.epsilon, status.mechanism) == (True, 20, "noise_only")
        assert 0 < status.answers_left < 20_000
        assert "epsilon 20" in repr(silos)
        result = run(silos, answers=3000, rounds=3).result
        assert all(silo.refusals.get("budget") for silo in result.silos)
        assert silos.silos[0].answers_left < 1000
    trained = {"mechanism": {"kind": "dp_sgd", "epsilon": 8, "delta": 1e-4}}
    with pytest.raises(PolicyError, match="the manifest has no proof of it"):
        federation(policy=trained, class_counts=[[300, 300, 300]] * 3)


def test_a_federation_shows_itself_in_a_notebook_with_strangers_names_escaped():
    with federation(names=["<b>north", "south", "west"]) as silos:
        assert "&lt;b&gt;north" in silos._repr_html_()
        assert "<b>" not in silos._repr_html_()
