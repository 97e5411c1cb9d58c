"""Each loss against a transcription of its formula in design section 1, and gradcheck."""

import math

import pytest
import torch

from hetseg_bids.network.flip import focal_with_logits
from hetseg_bids.network.systems import LabelFlip, Plain, PredictiveVariance
from hetseg_bids.structures.aseg import N_TASKS
from hetseg_bids.training.losses import soft_dice_loss


def bce(p: float, t: float) -> float:
    return -(t * math.log(p) + (1 - t) * math.log(1 - p))


def focal(p: float, t: float, gamma: float = 2.0) -> float:
    return abs(t - p) ** gamma * bce(p, t)


def sigmoid(a: float) -> float:
    return 1 / (1 + math.exp(-a))


def plain_by_hand(a: float, x: float) -> float:
    return focal(sigmoid(a), x)


def label_flip_by_hand(a: float, v: float, x: float) -> float:
    p, q = sigmoid(a), 0.5 * sigmoid(v)
    z = float((p > 0.5) != (x > 0.5))
    return focal(p, (1 - x) * q + x * (1 - q)) + focal(q, z)


@pytest.fixture
def sample() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = (2, N_TASKS, 3, 2)
    output = 4 * torch.randn(2, 2 * N_TASKS, 3, 2, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 2, shape, generator=generator).double()
    return output, labels


def test_plain_is_the_focal_loss(sample):
    output, labels = sample
    loss = Plain().loss(output[:, :N_TASKS], labels)
    for a, x, value in zip(
        output[:, :N_TASKS].flatten(), labels.flatten(), loss.flatten(), strict=True
    ):
        assert float(value) == pytest.approx(plain_by_hand(float(a), float(x)), rel=1e-9)


@pytest.mark.parametrize("detach_q", [True, False])
def test_label_flip_is_its_formula(sample, detach_q):
    output, labels = sample
    loss = LabelFlip(detach_q=detach_q).loss(output, labels)
    rows = zip(
        output[:, :N_TASKS].flatten(),
        output[:, N_TASKS:].flatten(),
        labels.flatten(),
        loss.flatten(),
        strict=True,
    )
    for a, v, x, value in rows:
        expected = label_flip_by_hand(float(a), float(v), float(x))
        assert float(value) == pytest.approx(expected, rel=1e-9)


def test_predictive_variance_is_its_formula(sample):
    output, labels = sample
    output = output / 2
    torch.manual_seed(11)
    loss = PredictiveVariance(samples=3).loss(output, labels)
    torch.manual_seed(11)
    noise = [torch.randn(labels.shape, dtype=torch.float64) for _ in range(3)]
    for place in [(0, 0, 0, 0), (1, 7, 2, 1), (0, 30, 1, 0)]:
        a, x = float(output[:, :N_TASKS][place]), float(labels[place])
        sigma = math.exp(0.5 * float(output[:, N_TASKS:][place]))
        expected = sum(focal(sigmoid(a + sigma * float(n[place])), x) for n in noise) / 3
        assert float(loss[place]) == pytest.approx(expected, rel=1e-9)


def small_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    output = torch.randn(1, 2 * N_TASKS, 1, 2, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 2, (1, N_TASKS, 1, 2), generator=generator).double()
    return output.requires_grad_(), labels


def test_gradcheck_plain():
    output, labels = small_inputs()
    a = output[:, :N_TASKS].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: Plain().loss(t, labels), a)


def test_gradcheck_label_flip():
    output, labels = small_inputs()
    assert torch.autograd.gradcheck(lambda t: LabelFlip(detach_q=False).loss(t, labels), output)


def test_gradcheck_predictive_variance():
    output, labels = small_inputs()

    def loss(t: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(2)
        return PredictiveVariance(samples=2).loss(t, labels)

    assert torch.autograd.gradcheck(loss, output)


def test_gradcheck_soft_targets_and_dice():
    output, labels = small_inputs()
    a = output[:, :N_TASKS].detach().requires_grad_()
    soft = labels * 0.8 + 0.1
    assert torch.autograd.gradcheck(lambda t: focal_with_logits(t, soft), a)
    assert torch.autograd.gradcheck(lambda t: soft_dice_loss(t, labels), a)


def test_detaching_removes_only_the_first_term_from_the_gradient_of_v():
    output, labels = small_inputs()
    LabelFlip(detach_q=True).loss(output, labels).sum().backward()
    v = output.detach()[:, N_TASKS:].requires_grad_()
    q = 0.5 * torch.sigmoid(v)
    z = ((output.detach()[:, :N_TASKS] > 0) != (labels > 0.5)).double()
    ((z - q).abs() ** 2 * -(z * q.log() + (1 - z) * (1 - q).log())).sum().backward()
    torch.testing.assert_close(output.grad[:, N_TASKS:], v.grad)


@pytest.mark.parametrize("v", [-60.0, 60.0])
def test_label_flip_stays_finite_at_extreme_logits(v):
    output = torch.full((1, 2 * N_TASKS, 1, 1), v, requires_grad=True)
    LabelFlip(detach_q=False).loss(output, torch.zeros(1, N_TASKS, 1, 1)).sum().backward()
    assert torch.isfinite(output.grad).all()


@pytest.mark.parametrize("v", [-1e4, -80.0, 80.0, 1e4])
@pytest.mark.parametrize("a", [-60.0, 0.0, 60.0])
def test_predictive_variance_stays_finite_at_extreme_log_variances(a, v):
    output = torch.full((2, 2 * N_TASKS, 1, 1), v)
    output[:, :N_TASKS] = a
    output.requires_grad_()
    labels = torch.zeros(2, N_TASKS, 1, 1)
    labels[1] = 1
    loss = PredictiveVariance().loss(output, labels)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(output.grad).all()


def test_soft_dice_ignores_absent_tasks_and_is_zero_for_a_perfect_answer():
    labels = torch.zeros(1, N_TASKS, 4, 4)
    labels[:, 2, :2] = 1
    logits = torch.where(labels > 0, 50.0, -50.0)
    assert float(soft_dice_loss(logits, labels)) == pytest.approx(0, abs=1e-6)
    logits[:, 7] = 50  # wrong everywhere, but absent from the batch
    assert float(soft_dice_loss(logits, labels)) == pytest.approx(0, abs=1e-6)


def test_soft_dice_is_its_formula():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, N_TASKS, 3, 3, generator=generator, dtype=torch.float64)
    labels = torch.zeros_like(logits)
    labels[0, 3, :2] = 1
    labels[1, 9, 1] = 1
    kept = (torch.rand(logits.shape, generator=generator) > 0.3).double()
    for mask in (None, kept):
        expected = 0.0
        for task in (3, 9):
            p, x = torch.sigmoid(logits[:, task]), labels[:, task]
            if mask is not None:
                p, x = p * mask[:, task], x * mask[:, task]
            expected += float(1 - (2 * (p * x).sum() + 1) / (p.sum() + x.sum() + 1)) / 2
        assert float(soft_dice_loss(logits, labels, mask)) == pytest.approx(expected, rel=1e-9)
    alone = labels.clone()
    alone[1, 9] = 0
    p = torch.sigmoid(logits[:, 3])
    dice = float((2 * (p * alone[:, 3]).sum() + 1) / (p.sum() + alone[:, 3].sum() + 1))
    assert float(soft_dice_loss(logits, alone)) == pytest.approx(1 - dice, rel=1e-9)
    nothing = soft_dice_loss(logits, torch.zeros_like(logits))
    assert float(nothing) == 0


def test_a_task_whose_labels_are_all_left_out_counts_for_nothing():
    labels = torch.zeros(1, N_TASKS, 2, 2)
    labels[:, 4] = 1
    kept = torch.ones_like(labels)
    kept[:, 4] = 0
    assert float(soft_dice_loss(torch.zeros_like(labels), labels, kept)) == 0


@pytest.mark.parametrize("gamma", [0.0, 1.0, 3.5])
def test_the_focus_can_be_chosen(sample, gamma):
    output, labels = sample
    place = (0, 4, 1, 1)
    a, v, x = (float(t[place]) for t in (output, output[:, N_TASKS:], labels))
    p, q = sigmoid(a), 0.5 * sigmoid(v)
    z = float((p > 0.5) != (x > 0.5))
    fit = focal(p, (1 - x) * q + x * (1 - q), gamma)
    plain = Plain(gamma=gamma).loss(output, labels)[place]
    assert float(plain) == pytest.approx(focal(p, x, gamma))
    loss = LabelFlip(gamma=gamma).loss(output, labels)[place]
    assert float(loss) == pytest.approx(fit + focal(q, z, gamma), rel=1e-9)
    torch.manual_seed(1)
    variance = PredictiveVariance(samples=1, gamma=gamma).loss(output, labels)
    torch.manual_seed(1)
    noisy = output[:, :N_TASKS] + torch.exp(output[:, N_TASKS:] / 2) * torch.randn_like(labels)
    torch.testing.assert_close(variance, focal_with_logits(noisy, labels, gamma))
