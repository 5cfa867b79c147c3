"""Training in several processes is training in one: losses, weights, stops and checkpoints.

Run as a program under torchrun this file is one of the processes: ``test_distributed.py FOLDER``.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from gcl.distributed import ALONE, WHOLE, GatheredBatchNorm, PeerLost, ProcessGroup
from gcl.errors import NonFiniteLoss, TrainingInterrupted, UnsuitableSetting
from gcl.losses.grouped import anchors_of, grouped_tuplet_loss, views_tuplet_loss
from gcl.methods import METHODS, build_method
from gcl.methods.base import TrainingData
from gcl.methods.configs import DmatIConfig, DmtConfig
from gcl.torchrun import torchrun_command, torchrun_environment
from gcl.trainer import train
from gcl.trainer_config import SHARING_METHODS, TrainConfig, check_processes
from tests.unit.gcl.test_method_battery import make_data, make_method

REPOSITORY = Path(__file__).resolve().parents[3]
LINEAR = {"embedding_size": 6, "entry_dropout_rate": 0.3}
MLP = {"encoder": "mlp", "hidden_size": 7, "embedding_size": 6, "projector": "mlp"}
CONFIGS = {
    "dmat_i": DmatIConfig(**LINEAR),
    "mlp": DmatIConfig(**MLP, num_views=3, debias_prior=0.1, form="C"),
    "all-views": DmatIConfig(
        **LINEAR, augmentations=("feature_mask", "entry_dropout", "gaussian_jitter"), form="A", output="l2"
    ),
    "three": DmatIConfig(**LINEAR, num_encoders=3),
    "dmt": DmtConfig(**LINEAR),
    "dmt-negatives": DmtConfig(**MLP, unlabelled="negatives", negative_mass="num_classes"),
    "dmt-instance": DmtConfig(**LINEAR, unlabelled="instance", num_views=2, num_labelled=8),
}
# 90 nodes in batches of 45: shares of unlike sizes for two processes and even ones for three.
SETTINGS = TrainConfig(epochs=4, batch_size=45, learning_rate=1e-2, weight_decay=1e-3, checkpoint_every=1)
MANY = 10_000
ONE_EPOCH = TrainConfig(epochs=1, batch_size=512)


def settings(count, config=SETTINGS):
    return config.model_copy(update={"num_processes": count})


def weights(method):
    return {name: value.double().flatten().tolist() for name, value in method.state_dict().items()}


def many_rows():
    x_NF = np.random.default_rng(0).normal(size=(MANY, 64)).astype(np.float32)
    method = build_method(DmatIConfig(embedding_size=64), num_features=64, seed=0)
    return method, TrainingData(MANY, x_NF)


def curves(processes):
    """Losses and weights after training of every configuration, and of an epoch over many rows."""
    found = {}
    for name, config in CONFIGS.items():
        method = make_method(config)
        result = train(method, make_data(config.name), settings(processes.count), seed=0, processes=processes)
        found[name] = [result.history, weights(method)]
    method, data = many_rows()
    result = train(method, data, settings(processes.count, ONE_EPOCH), seed=0, processes=processes)
    return found | {"many": [result.history, weights(method)]}


def stopped_and_resumed(processes, folder):
    """Whether a run that only the first process wants to stop ends everywhere, and resumes bit for bit."""
    config, data = CONFIGS["mlp"], make_data("dmat_i")
    unbroken = make_method(config)
    expected = train(unbroken, data, settings(processes.count), seed=0, processes=processes).history
    asked = iter(range(1000))

    def stop():
        return "as asked" if processes.is_first and next(asked) >= 5 else None

    rest = {"seed": 0, "processes": processes, "checkpoint_dir": folder}
    with pytest.raises(TrainingInterrupted, match=r"^as asked; 2 of 4 epochs are finished$"):
        train(make_method(config), data, settings(processes.count), should_stop=stop, **rest)
    processes.wait()
    kept = sorted(path.name for path in folder.glob("*.json"))
    processes.wait()
    method = make_method(config)
    result = train(method, data, settings(processes.count), **rest)
    return {
        "kept": kept,
        "resumed_from": result.resumed_from,
        "same": result.history == expected and weights(method) == weights(unbroken),
    }


def spoilt(processes):
    """What all processes say of a row that is not a number, which only one of them encodes."""
    method, data = make_method(CONFIGS["dmat_i"]), make_data("dmat_i")
    data.x_NF[7] = np.nan
    with pytest.raises(NonFiniteLoss) as caught:
        train(method, data, settings(processes.count), seed=0, processes=processes)
    return str(caught.value)


def be_one_of_several(folder):
    """The program that torchrun starts in each process; the first writes what it has found."""
    from torch._C._distributed_c10d import FileStore

    torch.set_num_threads(1)
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = FileStore(str(folder / "store"), count)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count)
    processes = ProcessGroup()
    found = {
        "curves": curves(processes),
        "stop": stopped_and_resumed(processes, folder / "checkpoints"),
        "spoilt": spoilt(processes),
    }
    (folder / f"found-{rank}.json").write_text(json.dumps(found))
    processes.wait()
    os._exit(0)


@pytest.fixture(scope="module", params=[2, 3])
def several(request, tmp_path_factory):
    """What each of two, and of three processes has found."""
    folder = tmp_path_factory.mktemp("processes")
    program = torchrun_command(folder, request.param, __file__, str(folder))
    environment = torchrun_environment(request.param) | {
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(request.param)]


@pytest.fixture(scope="module")
def alone():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield curves(ALONE)
    torch.set_num_threads(before)


@pytest.mark.slow
def test_losses_and_weights_are_those_of_one_process(several, alone):
    for name, (history, final) in alone.items():
        found, end = several[0]["curves"][name]
        for terms, others in zip(history, found, strict=True):
            assert others == pytest.approx(terms, rel=1e-5), name
        assert end.keys() == final.keys()
        for key, values in final.items():
            np.testing.assert_allclose(end[key], values, rtol=1e-4, atol=1e-6, err_msg=f"{name} {key}")


@pytest.mark.slow
def test_all_processes_hold_the_same_bits(several):
    assert all(found["curves"] == several[0]["curves"] for found in several)


@pytest.mark.slow
def test_a_stop_is_agreed_on_and_a_resumed_run_is_the_unbroken_one_bit_for_bit(several):
    for found in several:
        assert found["stop"]["kept"] == ["epoch-00000001.json", "epoch-00000002.json"]
        assert found["stop"]["resumed_from"] == 2
        assert found["stop"]["same"]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_all_with_the_same_words(several):
    assert {found["spoilt"] for found in several} == {
        "loss is not finite in epoch 1; try a smaller learning rate"
    }


@pytest.fixture
def group_of_one(tmp_path):
    from torch._C._distributed_c10d import FileStore

    dist.init_process_group("gloo", store=FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield ProcessGroup()
    dist.destroy_process_group()


def test_a_group_of_one_trains_to_the_same_bits_as_a_process_without_a_group(group_of_one):
    for name in ("dmat_i", "dmt-instance"):
        histories = [
            train(
                make_method(CONFIGS[name]), make_data(CONFIGS[name].name), SETTINGS, seed=0, processes=group
            )
            for group in (ALONE, group_of_one)
        ]
        assert histories[0].history == histories[1].history


def test_batch_norm_over_processes_is_batch_norm(group_of_one):
    x_BH = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    plain = nn.BatchNorm1d(5)
    gathered = GatheredBatchNorm.of(nn.BatchNorm1d(5))
    results = []
    for norm in (plain, gathered):
        x_BH.grad = None
        for _ in range(2):
            y_BH = norm(x_BH)
        (y_BH**3).sum().backward()
        norm.eval()
        results.append([y_BH, x_BH.grad, norm.weight.grad, norm(x_BH), *norm.state_dict().values()])
    assert plain.state_dict().keys() == gathered.state_dict().keys()
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


def test_a_layer_over_processes_takes_the_place_of_the_other_with_its_parameters(group_of_one):
    method = make_method(CONFIGS["mlp"])
    before = method.state_dict()
    group_of_one.prepare(method)
    assert type(method.encoder.norm) is GatheredBatchNorm
    assert all(value is before[name] or torch.equal(value, before[name]) for name, value in before.items())
    assert [*method.state_dict()] == [*before]


def test_words_of_any_length_are_passed_on(group_of_one):
    assert group_of_one.first_decides(lambda: None)() is None
    assert group_of_one.first_decides(lambda: "soll enden: ä")() == "soll enden: ä"
    assert group_of_one.first_decides(lambda: "ä" * 1000)() == "ä" * 128


def test_shares_cover_the_batch_once(group_of_one):
    data = make_data("dmat_i")
    for num_rows in (1, 2, 45):
        batch = data.batch(torch.arange(num_rows))
        shares = []
        for rank in range(4):
            group_of_one.rank, group_of_one.count = rank, 4
            shares.append(group_of_one.share(batch).share.rows)
        rows = [row for part in shares for row in range(*part.indices(num_rows))]
        assert rows == list(range(num_rows))
        assert max(part.stop - part.start for part in shares) <= num_rows // 4 + 1


def test_a_process_that_is_alone_shares_nothing():
    batch = make_data("dmat_i").batch(torch.arange(5))
    assert ALONE.share(batch) is batch
    assert batch.share is WHOLE
    z_VBD = torch.ones(2, 5, 3)
    assert WHOLE.gather(z_VBD) is z_VBD
    assert WHOLE.total(z_VBD) is z_VBD


@pytest.mark.parametrize("debias_prior", [0.0, 0.2])
@pytest.mark.parametrize("block_size", [None, 3])
def test_parts_of_the_loss_add_up_with_their_gradients(debias_prior, block_size):
    z_VBD = torch.randn(3, 11, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y_B = torch.tensor([0, 1, 0, -1, 2, 1, 1, -1, 3, 0, 1])
    rest = {"temperature": 0.3, "debias_prior": debias_prior, "block_size": block_size}

    def both(leaf, nodes):
        anchors = anchors_of(nodes, num_views=3, num_nodes=11)
        classes = grouped_tuplet_loss(leaf.flatten(0, 1), y_B.repeat(3), anchors=anchors, **rest)
        return classes.loss + views_tuplet_loss(leaf, nodes=nodes, **rest).loss

    sums = []
    for parts in ([slice(None)], [slice(0, 4), slice(4, 4), slice(4, 11)]):
        leaf = z_VBD.clone().requires_grad_()
        losses = [both(leaf, nodes) for nodes in parts]
        sum(losses).backward()
        sums.append((sum(losses).item(), leaf.grad))
    assert sums[0][0] == pytest.approx(sums[1][0], rel=1e-12)
    torch.testing.assert_close(sums[0][1], sums[1][1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(SHARING_METHODS)))
def test_all_other_methods_refuse_in_one_line(name):
    with pytest.raises(UnsuitableSetting, match=rf"{name} .*train\.num_processes=1.*dmat_i, dmt") as caught:
        check_processes(SimpleNamespace(name=name))
    assert "\n" not in str(caught.value)


def test_dropout_inside_the_encoder_is_refused_and_a_linear_encoder_has_none():
    with pytest.raises(UnsuitableSetting, match="method.dropout_rate"):
        check_processes(DmatIConfig(**MLP, dropout_rate=0.2))
    check_processes(DmatIConfig(dropout_rate=0.2))


def test_a_number_of_processes_is_never_ignored():
    with pytest.raises(UnsuitableSetting, match=r"train\.num_processes=2, and 1 are there"):
        train(make_method(CONFIGS["dmat_i"]), make_data("dmat_i"), settings(2), seed=0)


def test_the_number_of_processes_is_part_of_the_key():
    from gcl.config import affects_results

    assert affects_results(TrainConfig, "num_processes")


def test_a_lost_process_is_told_from_other_errors(group_of_one, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(dist, "all_reduce", broken)
    with pytest.raises(PeerLost, match="closed by peer"):
        group_of_one.wait()


if __name__ == "__main__":
    be_one_of_several(Path(sys.argv[1]))


def test_processes_of_one_machine_talk_over_loopback_whatever_the_shell_says(monkeypatch):
    from gcl.torchrun import torchrun_environment

    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth0")
    environment = torchrun_environment(2)
    assert {environment[name] for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")} == {"lo"}
