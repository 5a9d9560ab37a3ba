import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import nn

from tests.networks.standin import Tracer
from vpcore import InputError
from vpcore.data.images import Images
from vpcore.networks import repeat as repeating
from vpcore.networks.backbones import build
from vpcore.networks.frozen import Frozen
from vpcore.networks.training import predict
from vpcore.probing.linear_probing import linear_probe, probe_features
from vpcore.probing.optimal_probing import L2_GRID, minimise, optimal_probe


def blobs(n: int, width: int, targets: int, *, seed: int, spread: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, D) float64 features around one centre a class, and their classes, every class among the first T."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(targets, width, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    labels = torch.cat([torch.arange(targets), torch.randint(targets, (n - targets,), generator=generator)])
    return centres[labels] + spread * torch.randn(n, width, generator=generator, dtype=torch.float64), labels


def features(n: int = 90, width: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    return torch.randn(n, width, generator=generator) + 3 * F.one_hot(labels, width).float(), labels


@pytest.mark.parametrize("batch", [128, 16])
def test_a_probe_is_a_linear_layer_trained_with_adam(batch: int) -> None:
    x, labels = features()
    probe = probe_features(x, labels, torch.arange(90)[None], targets=3, epochs=10, batch=batch, lr=0.01, seeds=[2])
    generator = torch.Generator().manual_seed(2)
    layer, bound = nn.Linear(12, 3), 12**-0.5
    with torch.no_grad():
        layer.weight.copy_(((torch.rand(12, 3, generator=generator) * 2 - 1) * bound).T)
        layer.bias.copy_((torch.rand(1, 3, generator=generator)[0] * 2 - 1) * bound)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 7], gamma=0.1)
    for _ in range(10):
        for rows in torch.randperm(90, generator=generator).split(batch):
            optimizer.zero_grad()
            F.cross_entropy(layer(x[rows]), labels[rows]).backward()
            optimizer.step()
        schedule.step()
    torch.testing.assert_close(probe(x)[0], layer(x), rtol=1e-4, atol=1e-4)


def test_probes_of_a_cohort_do_not_meet() -> None:
    x, labels = features()
    index = torch.stack([torch.arange(30), torch.arange(30, 60)])
    settings = {"targets": 3, "epochs": 60, "batch": 16, "lr": 0.01}
    together = probe_features(x, labels, index, seeds=[0, 1], **settings)(x)
    for k in range(2):
        alone = probe_features(x, labels, index[k : k + 1], seeds=[k], **settings)(x)
        torch.testing.assert_close(alone[0], together[k], rtol=1e-4, atol=1e-4)
    accuracy = (together.argmax(2) == labels).float().mean(1)
    assert bool((accuracy > 0.8).all())


@pytest.mark.parametrize("strength", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize(("n", "width", "targets"), [(40, 5, 2), (200, 20, 10), (30, 60, 3)])
def test_the_optimum_is_that_of_scikit_learn(n: int, width: int, targets: int, strength: float) -> None:
    x, y = blobs(n, width, targets, seed=n)
    weight, bias = minimise(x, y, x.new_zeros(width, targets), x.new_zeros(1, targets), strength=strength)
    # for two classes scikit-learn fits one logit w x + b; two logits of ours share it, so |w|^2 of theirs is twice |W|^2
    reference = LogisticRegression(C=(2 if targets == 2 else 1) / (n * strength), tol=1e-10, solver="newton-cholesky")
    assert np.abs((x @ weight + bias).softmax(1).numpy() - reference.fit(x, y).predict_proba(x)).max() < 2e-6


def test_the_gradient_is_zero_at_the_optimum() -> None:
    x, y = blobs(60, 8, 4, seed=1)
    weight, bias = minimise(x, y, x.new_zeros(8, 4), x.new_zeros(1, 4), strength=1e-3)
    error = (x @ weight + bias).softmax(1) - torch.nn.functional.one_hot(y, 4)
    assert (x.T @ error / 60 + 1e-3 * weight).abs().max() < 1e-7
    assert error.mean(0).abs().max() < 1e-7


def test_validation_images_choose_the_strength_of_l2() -> None:
    x, y = blobs(80, 30, 4, seed=2)
    val = blobs(400, 30, 4, seed=3)
    index = torch.arange(80)[None]
    nll = {}
    for factor in L2_GRID:
        alone = optimal_probe(x, y, index, targets=4, val=val, path=(factor,))
        nll[alone.strength[0]] = float(torch.nn.functional.cross_entropy(alone(val[0])[0], val[1]))
    chosen = optimal_probe(x, y, index, targets=4, val=val)
    assert chosen.strength[0] == pytest.approx(min(nll, key=nll.get))
    assert max(nll, key=nll.get) != min(nll, key=nll.get)


def test_the_scale_of_the_features_does_not_matter() -> None:
    x, y = blobs(50, 6, 3, seed=4)
    val, index = blobs(90, 6, 3, seed=5), torch.arange(50)[None]
    plain = optimal_probe(x, y, index, targets=3, val=val)
    scaled = optimal_probe(1000 * x, y, index, targets=3, val=(1000 * val[0], val[1]))
    assert torch.allclose(plain(val[0]), scaled(1000 * val[0]), atol=1e-4)


def test_members_are_as_if_alone() -> None:
    x, y = blobs(60, 6, 3, seed=6)
    val, index = blobs(90, 6, 3, seed=7), torch.stack([torch.arange(30), torch.arange(30, 60)])
    both = optimal_probe(x, y, index, targets=3, val=val)
    for member in range(2):
        alone = optimal_probe(x, y, index[member : member + 1], targets=3, val=val)
        assert torch.equal(both(val[0])[member], alone(val[0])[0])
    adam = {"targets": 3, "epochs": 5, "batch": 8, "lr": 0.1}
    together = probe_features(x.float(), y, index, **adam, seeds=[3, 4])(val[0].float())
    for member, seed in enumerate((3, 4)):
        alone = probe_features(x.float(), y, index[member : member + 1], **adam, seeds=[seed])(val[0].float())
        assert torch.allclose(together[member], alone[0], atol=1e-5)


def test_the_strong_probe_has_the_lower_training_loss_when_l2_is_weak() -> None:
    x, y = blobs(120, 10, 4, seed=8)
    index = torch.arange(120)[None]
    paper = probe_features(x.float(), y, index, targets=4, epochs=100, batch=128, lr=0.01, seeds=[0])(x.float())[0]
    strong = optimal_probe(x, y, index, targets=4, val=(x, y))(x)[0]
    loss = torch.nn.functional.cross_entropy
    assert loss(strong, y) < loss(paper, y)


def test_selection_keeps_the_best_epoch_of_each_member() -> None:
    """With a large learning rate the accuracy goes up and down, so that the last epoch is not the best."""
    x, y = (t.float() if t.is_floating_point() else t for t in blobs(40, 6, 4, seed=9, spread=3.0))
    held = tuple(t.float() if t.is_floating_point() else t for t in blobs(200, 6, 4, seed=10, spread=3.0))
    index = torch.stack([torch.arange(20), torch.arange(20, 40)])
    shared = {"targets": 4, "batch": 7, "lr": 0.5, "seeds": [0, 1]}

    def accuracy(logits: torch.Tensor) -> torch.Tensor:
        return (logits.argmax(2) == held[1]).double().mean(1)

    picked = accuracy(probe_features(x, y, index, epochs=8, select=held, **shared)(held[0]))
    last = accuracy(probe_features(x, y, index, epochs=8, **shared)(held[0]))
    assert (picked >= last).all()
    assert (picked > last).any()


def test_an_empty_path_is_refused() -> None:
    x, y = blobs(10, 3, 2, seed=0)
    with pytest.raises(InputError, match="`path` must hold at least one strength"):
        optimal_probe(x, y, torch.arange(10)[None], targets=2, val=(x, y), path=())


def test_the_weak_end_of_the_path_is_reached_too() -> None:
    """Where classes are separable the weakest penalties differ little, and a coarse optimum would stay at the one before."""
    x, y = blobs(24, 40, 3, seed=8)
    val, index = (x, y), torch.arange(24)[None]  # all of them right: the weaker the penalty, the surer
    assert (
        optimal_probe(x, y, index, targets=3, val=val).strength
        == optimal_probe(x, y, index, targets=3, val=val, path=L2_GRID[-1:]).strength
    )


def striped(n: int = 40) -> Images:
    """Images of 16 px that are red, green or blue."""
    labels = torch.arange(n) % 3
    noise = torch.randint(100, (n, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    return Images((noise + 100 * F.one_hot(labels, 3)[:, :, None, None]).to(torch.uint8), labels, ("red", "green", "blue"))


@pytest.fixture
def network(cpu: torch.device) -> Frozen:
    return Frozen(build("resnet8", classes=5, seed=0), precision="float32", device=cpu)


def test_a_probe_on_images_is_one_on_their_features(network: Frozen, cpu: torch.device) -> None:
    """Also of few shots, whose features alone are computed, of a view, and with a choice of the epoch."""
    train, index = striped(), torch.tensor([[0, 1, 2, 9], [3, 4, 5, 9]])
    settings = {"epochs": 7, "batch": 3, "lr": 0.1, "seeds": [1, 2]}
    for view in (lambda x: x, lambda x: F.pad(x, [4] * 4, value=0.5)):
        features = predict(lambda x, view=view: network.features(view(x)), train.images, device=cpu)
        for select in (None, train):
            held = None if select is None else (features, train.labels)
            probed = linear_probe(network, train, index=index, view=view, select=select, **settings)
            expected = probe_features(features, train.labels, index, targets=3, select=held, **settings)
            torch.testing.assert_close(probed(train.images), expected(features), rtol=1e-3, atol=1e-4)
            assert probed.classifiers.loss == pytest.approx(expected.loss, abs=1e-4)


def test_the_defaults_are_the_authors_recipe(network: Frozen) -> None:
    train = striped()
    ours = linear_probe(network, train)
    theirs = linear_probe(
        network, train, index=torch.arange(40)[None], epochs=100, batch=64, lr=0.01, seeds=[0]
    )  # 14 images a class: more than 10
    logits = ours(train.images)
    assert torch.equal(logits, theirs(train.images))
    assert (logits.shape, logits.dtype, logits.device.type) == ((1, 40, 3), torch.float32, "cpu")
    assert float((logits[0].argmax(1) == train.labels).float().mean()) > 0.9


def test_wrong_arguments(network: Frozen) -> None:
    train = striped()
    with pytest.raises(InputError, match="`network` must be a Frozen network, got a Linear"):
        linear_probe(nn.Linear(2, 2), train)
    with pytest.raises(InputError, match="`train.images` must be uint8 in 0..255, got torch.float32"):
        linear_probe(network, Images(train.images / 255, train.labels, train.classes))
    with pytest.raises(InputError, match="`index` must be in 0..39"):
        linear_probe(network, train, index=torch.tensor([[40]]))
    with pytest.raises(InputError, match="`epochs` must be a whole number of at least 1, got 0"):
        linear_probe(network, train, epochs=0)
    x, y = blobs(10, 3, 2, seed=0)
    settings = {"targets": 2, "epochs": 1, "batch": 4, "lr": 0.1, "seeds": [0]}
    with pytest.raises(InputError, match=r"`labels` must have the shape \(9,\), got \(10,\)"):
        probe_features(x[:9], y, torch.arange(9)[None], **settings)
    x[3] = torch.nan
    message = "`features` must be finite numbers, got NaN or infinity in 1 of 10 rows, first in row 3"
    with pytest.raises(InputError, match=message):
        probe_features(x.float(), y, torch.arange(10)[None], **settings)
    with pytest.raises(InputError, match=message):
        optimal_probe(x, y, torch.arange(10)[None], targets=2, val=(x, y))


@pytest.mark.parametrize("batch", [128, 16])
def test_probes_replayed_are_probes(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU replays their steps, by the stand-in: the learning rate and a last, smaller batch change between replays."""
    x, labels = features()
    settings = {"targets": 3, "epochs": 12, "batch": batch, "lr": 0.1, "seeds": [0, 1]}
    index = torch.arange(90).expand(2, -1)
    plain = probe_features(x, labels, index, **settings)
    made: list[Tracer] = []
    monkeypatch.setitem(repeating.RECORDERS, "cpu", lambda device: made.append(Tracer()) or made[-1])
    replayed = probe_features(x, labels, index, **settings)
    torch.testing.assert_close(replayed(x), plain(x), rtol=1e-5, atol=1e-5)
    assert replayed.loss == pytest.approx(plain.loss, abs=1e-6)
    assert made[0].replayed == {128: 12 - 3, 16: 6 * 12 - 2 * 3}[batch]
