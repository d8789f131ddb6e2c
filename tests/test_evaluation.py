"""Claims about the judge: what an attack hands in is judged from outside."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from attacks import FMN, DeepFool, Draws, Threat
from orchestrator import evaluate_robustness

LINF = Threat("linf", 0.1)


class Ramp(nn.Module):
    """Two classes, decided by the mean pixel: class 1 above 0.5. Its linf distance is |mean - 0.5|."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        return torch.stack([0.5 - mean, mean - 0.5], 1) * 20


def ramp_images(*means: float) -> Tensor:
    return torch.tensor(means)[:, None, None, None].expand(-1, 1, 4, 4).clone()


@dataclass(frozen=True)
class Shift:
    """Adds `by` to every pixel: to be inside or outside the threat at will."""

    by: float = 0.0
    name: ClassVar[str] = "shift"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        return x + self.by


IMAGES, LABELS = ramp_images(0.55, 0.45, 0.65, 0.2, 0.7), torch.tensor([1, 0, 1, 0, 0])


def test_figures_of_a_model_whose_distances_are_known() -> None:
    found = evaluate_robustness(Ramp(), IMAGES, LABELS, threat=LINF, attacks=["pgd"], doubts="off")
    assert found.clean_accuracy == pytest.approx(0.8)
    assert found.robust_accuracy == pytest.approx(0.4)  # 0.55 and 0.45 fall at 0.1; 0.7 is a clean error
    low, high = found.confidence_interval
    assert 0 < low < 0.4 < high < 1


def test_adversarials_are_wrong_exactly_where_examples_are_not_robust_and_errors_give_the_image() -> None:
    found = evaluate_robustness(Ramp(), IMAGES, LABELS, threat=LINF, attacks=["noise", "fgsm", "pgd"], doubts="off")
    last = found.per_example[found.per_example["attack"] == "pgd"]
    wrong = Ramp()(found.adversarials).argmax(1) != LABELS
    assert wrong.tolist() == (~last["robust"]).tolist()
    assert torch.equal(found.adversarials[4], IMAGES[4])
    assert LINF.allows(IMAGES, found.adversarials).all()


def test_an_attack_that_leaves_the_ball_is_not_counted_and_is_said() -> None:
    found = evaluate_robustness(Ramp(), ramp_images(0.55), torch.tensor([1]), threat=LINF, attacks=[Shift(-0.3)])
    assert found.robust_accuracy == 1.0
    assert [d.kind for d in found.doubts if d.severity == "severe"].count("outside_threat") == 1


def test_an_attack_that_leaves_the_box_is_not_counted() -> None:
    found = evaluate_robustness(Ramp(), ramp_images(0.02), torch.tensor([0]), threat=LINF, attacks=[Shift(-0.05)])
    assert "outside_threat" in [d.kind for d in found.doubts]


def test_survivors_go_on_and_robust_accuracy_is_cumulative() -> None:
    found = evaluate_robustness(Ramp(), IMAGES, LABELS, threat=LINF, attacks=[Shift(-0.06), Shift(0.06), Shift(0.0)])
    rows = found.per_attack
    assert rows["n_attacked"].tolist() == [4, 3, 2]
    assert rows["n_fooled"].tolist() == [1, 1, 0]
    assert rows["robust_accuracy"].tolist() == pytest.approx([0.6, 0.4, 0.4])
    assert rows["position"].tolist() == [0, 1, 2]


def test_summaries_equal_what_the_rows_say() -> None:
    found = evaluate_robustness(Ramp(), IMAGES, LABELS, threat=LINF, attacks=["fgsm", "pgd"], eps=[0.025, 0.05])
    for row in found.per_attack.to_dict("records"):
        mine = found.per_example[
            (found.per_example["attack_id"] == row["attack_id"]) & (found.per_example["eps"] == row["eps"])
        ]
        assert len(mine) == row["n"]
        assert mine["robust"].mean() == pytest.approx(row["robust_accuracy"])
        assert (mine["label"] == mine["clean_prediction"]).mean() == pytest.approx(row["clean_accuracy"])
        assert mine["distance"].isna().tolist() == mine["robust"].tolist()


def test_an_example_fooled_at_a_smaller_eps_is_not_attacked_again() -> None:
    images, labels = ramp_images(0.52, 0.54, 0.57, 0.9), torch.tensor([1, 1, 1, 1])
    found = evaluate_robustness(Ramp(), images, labels, threat=LINF, attacks=["fgsm"], eps=[0.025, 0.05])
    assert found.per_attack["n_attacked"].tolist() == [4, 3, 2]
    assert found.curve == pytest.approx({0.025: 0.75, 0.05: 0.5, 0.1: 0.25})
    assert found.robust_area == pytest.approx(0.5)


def test_without_the_curve_there_is_no_area() -> None:
    assert evaluate_robustness(Ramp(), IMAGES, LABELS, threat=LINF, attacks=["fgsm"]).robust_area is None


def test_passes_are_counted_per_attacked_example() -> None:
    images, labels = ramp_images(0.9, 0.95, 0.1), torch.tensor([1, 1, 0])
    found = evaluate_robustness(Ramp(), images, labels, threat=LINF, attacks=[{"name": "pgd", "steps": 7}])
    row = found.per_attack.iloc[0]
    assert row["backward_passes"] == 7
    assert row["forward_passes"] == 8  # the last step is scored


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_the_answer_does_not_depend_on_batch_size_or_global_seed(batch_size: int) -> None:
    torch.manual_seed(batch_size)
    attacks = [{"name": "noise"}, {"name": "pgd", "restarts": 2}]
    found = evaluate_robustness(Ramp(), IMAGES, LABELS, threat=LINF, attacks=attacks, batch_size=batch_size)
    again = evaluate_robustness(Ramp(), IMAGES, LABELS, threat=LINF, attacks=attacks)
    assert torch.equal(found.adversarials, again.adversarials)


@pytest.mark.parametrize("fails", [False, True])
def test_every_module_keeps_its_mode(fails: bool) -> None:
    def attack(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        assert not any(module.training for module in model.modules())
        model.train()
        if fails:
            raise RuntimeError("an attack's own")
        return x

    model = nn.Sequential(nn.BatchNorm2d(1), nn.Sequential(nn.Dropout(), Ramp())).train()
    model[0].eval()  # frozen, as when a network is tuned further
    modes = [module.training for module in model.modules()]
    with pytest.raises(RuntimeError, match="an attack's own") if fails else contextlib.nullcontext():
        evaluate_robustness(model, IMAGES, LABELS, threat=LINF, attacks=[attack])
    assert [module.training for module in model.modules()] == modes == [True, False, True, True, True]


def test_an_attack_that_leaves_the_model_in_training_mode_is_judged_in_eval_mode() -> None:
    class Fickle(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = Ramp()(x)
            return -logits if self.training else logits

    def attack(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        model.train()
        return x

    found = evaluate_robustness(Fickle(), IMAGES, LABELS, threat=LINF, attacks=[attack, "noise"], doubts="off")
    assert found.per_attack["n_fooled"].iloc[0] == 0
    assert found.per_attack["robust_accuracy"].iloc[0] == found.clean_accuracy == pytest.approx(0.8)


def test_at_eps_zero_robust_accuracy_is_clean_accuracy() -> None:
    found = evaluate_robustness(Ramp(), IMAGES, LABELS, threat=Threat("l2", 0.0), attacks=["pgd", "noise"])
    assert found.robust_accuracy == found.clean_accuracy


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).sum(1, keepdim=True) * 0 + torch.tensor([1.0, 0.0, 0.0])


def test_a_constant_model_is_degenerate_though_no_attack_fools_it() -> None:
    found = evaluate_robustness(Constant(), ramp_images(*[0.5] * 9), torch.arange(9) % 3, threat=LINF, attacks=["pgd"])
    assert found.robust_accuracy == found.clean_accuracy
    assert ("degenerate", "severe") in [(d.kind, d.severity) for d in found.doubts]


def test_a_good_model_raises_no_doubt() -> None:
    images, labels = ramp_images(0.1, 0.2, 0.8, 0.9), torch.tensor([0, 0, 1, 1])
    assert evaluate_robustness(Ramp(), images, labels, threat=LINF, attacks=["pgd"]).doubts == []


def test_probabilities_instead_of_logits_are_said() -> None:
    model = nn.Sequential(Ramp(), nn.Softmax(1))
    found = evaluate_robustness(model, IMAGES, LABELS, threat=LINF, attacks=["fgsm"])
    assert "probabilities" in [d.kind for d in found.doubts]


class Coin(nn.Module):
    """Right with probability 3/4 whatever the image, on draws given by the evaluator."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: Draws | None = None

    def forward(self, x: Tensor) -> Tensor:
        luck = self.draws.uniform(1) if self.draws is not None else torch.rand(len(x), 1)
        return torch.cat([(luck - 0.25), (0.25 - luck)], 1) + 0 * x.flatten(1).sum(1, keepdim=True)


def test_a_stochastic_model_is_judged_by_its_expected_accuracy_on_fresh_draws() -> None:
    images, labels = ramp_images(*[0.5] * 400), torch.zeros(400, dtype=torch.long)
    attacks = [{"name": "pgd", "steps": 2, "restarts": 5}]
    found = evaluate_robustness(Coin(), images, labels, threat=LINF, attacks=attacks, doubts="off")
    assert found.clean_accuracy == pytest.approx(0.75, abs=0.03)
    assert found.robust_accuracy == pytest.approx(0.75, abs=0.03)  # picking the unluckiest restart does not count
    assert found.per_example["robust_probability"].between(0, 1).all()


class Moody(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Ramp()(x) + torch.rand(len(x), 2)


def test_undeclared_randomness_is_said() -> None:
    found = evaluate_robustness(Moody(), IMAGES, LABELS, threat=LINF, attacks=["fgsm"])
    assert "random_outputs" in [d.kind for d in found.doubts]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES * 255, LABELS, r"must be in \[0, 1\]"),
        (IMAGES, LABELS[:3], "labels: must be integers"),
        (IMAGES, LABELS + 5, "must give logits"),
        (IMAGES, LABELS - 1, "must be >= 0"),
        (
            (IMAGES * 255).byte(),
            LABELS,
            r"must be float .*got torch.uint8 .*; for 8-bit images: images.float\(\) / 255$",
        ),
        ((IMAGES * 255).short(), LABELS, r"must be float .*got torch.int16 "),
        (IMAGES * 255, LABELS, r"from 51 to 178.5; did you mean images / 255\?$"),
        (IMAGES * 2 - 1, LABELS, r"from -0.6 to 0.4; a normalisation belongs into the model, as its first layer$"),
        (IMAGES[:, 0], LABELS, r"must be float \[n, C, H, W\] with n > 0, got torch.float32 \[5, 4, 4\]$"),
        (IMAGES, LABELS.float(), "labels: must be integers"),
        (IMAGES, LABELS.bool(), "labels: must be integers"),
        (IMAGES.numpy(), LABELS, "images: must be a torch tensor, got ndarray; torch.as_tensor makes one"),
        (IMAGES, LABELS.tolist(), "labels: must be a torch tensor, got list"),
        (IMAGES[:0], LABELS[:0], "n > 0"),
        (IMAGES * float("nan"), LABELS, r"must be in \[0, 1\], got NaN in image 0$"),
    ],
)
def test_wrong_inputs_are_refused(images: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_robustness(Ramp(), images, labels, threat=LINF, attacks=["fgsm"])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            nn.Flatten(0),
            r"must give logits \[n, K\] with K > 1 \(the largest label, at row 0\), got \[80\] for 5 images",
        ),
        (nn.Sequential(Ramp(), nn.Linear(2, 1)), r"must give logits .* got \[5, 1\] for 5 images"),
        (nn.Flatten(0, 2), r"must give logits .* got \[20, 4\] for 5 images"),
        (nn.Sequential(nn.Flatten(), nn.LSTM(16, 2)), "must give logits .*, a tensor, got tuple"),
        (lambda x: x, "model: must be a torch.nn.Module, got function"),
    ],
)
def test_what_is_no_classifier_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_robustness(model, IMAGES, LABELS, threat=LINF, attacks=["fgsm"])


@pytest.mark.parametrize(
    ("threat", "eps", "message"),
    [
        (Threat("linf", 8), [], r"^eps: must be .*, at most 1 for linf, got 8; did you mean 8/255\?$"),
        (LINF, [0.1, 8], r"^eps: must be .*, at most 1 for linf, got 8; did you mean 8/255\?$"),
        (
            Threat("l2", 128),
            [],
            r"^eps: must be .*, at most 4 for l2 for images of 16 values, got 128; did .* 128/255\?$",
        ),
        (Threat("l1", 17), [], r"^eps: must be .*, at most 16 for l1 for images of 16 values, got 17; did"),
        (LINF, [-0.1], r"^eps: must be finite and >= 0, got -0.1$"),
    ],
)
def test_an_eps_beyond_black_and_white_is_asked_about(threat: Threat, eps: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_robustness(Ramp(), IMAGES, LABELS, threat=threat, eps=eps, attacks=["fgsm"])


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^batch_size: must be a whole number >= 1, got 0$"):
        evaluate_robustness(Ramp(), IMAGES, LABELS, threat=LINF, attacks=["fgsm"], batch_size=0)


def test_an_unknown_attack_is_refused_and_the_nearest_offered() -> None:
    with pytest.raises(ValueError, match="pgd"):
        evaluate_robustness(Ramp(), IMAGES, LABELS, threat=LINF, attacks=["pgdd"])


def test_an_attack_that_is_not_for_the_norm_is_refused_before_any_is_run() -> None:
    eot = {"name": "eot", "attack": {"name": "ddn"}}
    for attack, name in (("carlini_wagner", "carlini_wagner"), (eot, "eot")):
        with pytest.raises(ValueError, match=rf"^attacks: {name} is for threats in l2, got one in linf$"):
            evaluate_robustness(Ramp(), IMAGES, LABELS, threat=LINF, attacks=[Shift(), attack])


def test_logits_that_are_not_finite_are_refused() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Ramp()(x) / 0

    with pytest.raises(ValueError, match=r"^the model's logits are not finite for 5 of 5 images$"):
        evaluate_robustness(Broken(), IMAGES, LABELS, threat=LINF, attacks=["fgsm"], doubts="off")


def test_logits_that_are_finite_on_clean_images_only_are_refused() -> None:
    class Overflowing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = Ramp()(x)
            moved = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True)).abs().sum(1, keepdim=True)
            return logits / (moved < 1e-3)

    def tilted(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        return x + torch.linspace(-0.05, 0.05, 16).view(4, 4)

    with pytest.raises(ValueError, match=r"^the model's logits are not finite for 4 of 4 images$"):
        evaluate_robustness(Overflowing(), IMAGES, LABELS, threat=LINF, attacks=[tilted], doubts="off")


class Halved(Coin):
    """Nearly always wrong on an attacked image, right three times in four on a clean one."""

    def forward(self, x: Tensor) -> Tensor:
        is_clean = (x.flatten(1) == 0.5).all(1, keepdim=True)
        luck = self.draws.uniform(1) if self.draws is not None else torch.rand(len(x), 1)
        gap = luck - torch.where(is_clean, 0.55, 0.98)
        return torch.cat([gap, -gap], 1) + 0 * x.flatten(1).sum(1, keepdim=True)


def test_examples_that_a_stochastic_model_mostly_misses_are_attacked_too() -> None:
    images, labels = ramp_images(*[0.5] * 200), torch.zeros(200, dtype=torch.long)
    found = evaluate_robustness(Halved(), images, labels, threat=LINF, attacks=["noise"], doubts="off")
    assert found.clean_accuracy == pytest.approx(0.45, abs=0.04)
    assert found.robust_accuracy < 0.06


def test_half_of_the_predictions_for_one_of_two_classes_is_no_collapse() -> None:
    images, labels = ramp_images(*[0.2] * 24, *[0.8] * 26), torch.tensor([0] * 25 + [1] * 25)
    assert evaluate_robustness(Ramp(), images, labels, threat=LINF, attacks=["fgsm"]).doubts == []


def test_images_and_labels_of_other_types_are_taken() -> None:
    found = evaluate_robustness(Ramp(), IMAGES.double(), LABELS.int(), threat=LINF, attacks=["pgd"], doubts="off")
    assert found.adversarials.dtype == torch.float64
    assert found.robust_accuracy == pytest.approx(0.4)


def test_example_ids_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="one per image"):
        evaluate_robustness(Ramp(), IMAGES, LABELS, threat=LINF, attacks=["fgsm"], example_ids=torch.arange(3))


def test_two_nameless_attacks_are_refused() -> None:
    with pytest.raises(ValueError, match="two different"):
        evaluate_robustness(
            Ramp(), IMAGES, LABELS, threat=LINF, attacks=[lambda m, x, y, t, d: x, lambda m, x, y, t, d: x + 0]
        )


MINIMUM_NORM = [FMN(steps=30), DeepFool()]


@pytest.mark.parametrize("attack", MINIMUM_NORM)
def test_a_minimum_norm_attack_is_run_once_for_all_eps(attack: FMN) -> None:
    """0.52 falls at 0.025, 0.54 at 0.05, 0.57 at 0.1, 0.9 never; each curve is that of an evaluation of its own."""
    images, labels = ramp_images(0.52, 0.54, 0.57, 0.9), torch.tensor([1, 1, 1, 1])
    found = evaluate_robustness(Ramp(), images, labels, threat=LINF, attacks=attack, eps=[0.025, 0.05], doubts="off")
    assert found.curve == pytest.approx({0.025: 0.75, 0.05: 0.5, 0.1: 0.25})
    assert found.per_attack["n_attacked"].tolist() == [4, 3, 2]
    assert (found.per_attack["backward_passes"] > 0).tolist() == [True, False, False]
    assert (found.per_attack["forward_passes"] > 0).tolist() == [True, False, False]
    for eps, robust in found.curve.items():
        alone = evaluate_robustness(Ramp(), images, labels, threat=Threat("linf", eps), attacks=attack, doubts="off")
        assert alone.robust_accuracy == robust
    last = found.per_example[found.per_example["eps"] == 0.1]["distance"]
    assert last.tolist()[:3] == pytest.approx([0.02, 0.04, 0.07], rel=0.03)
    assert last.isna().tolist() == [False, False, False, True]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_what_a_minimum_norm_attack_found_once_does_not_depend_on_batches(batch_size: int) -> None:
    asked = {"threat": LINF, "attacks": ["noise", FMN(steps=10)], "eps": [0.03, 0.05], "doubts": "off"}
    images, labels = ramp_images(0.52, 0.54, 0.46, 0.57, 0.9), torch.tensor([1, 1, 0, 1, 1])
    found, whole = (evaluate_robustness(Ramp(), images, labels, **asked, batch_size=n) for n in (batch_size, 100))
    assert torch.equal(found.adversarials, whole.adversarials)


def test_after_a_minimum_norm_attack_it_is_news_that_noise_finds_more_at_every_eps() -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            score = (x[:, 0, 0, 0] - 0.5).abs().detach() - 0.001 + 0 * x.flatten(1).sum(1)
            return torch.stack([-score, score], 1)

    images, labels = ramp_images(*[0.5] * 8), torch.zeros(8, dtype=torch.long)
    found = evaluate_robustness(
        Flat(), images, labels, threat=LINF, attacks=[DeepFool(), {"name": "noise", "queries": 1}], eps=[1e-4]
    )
    assert [doubt.kind for doubt in found.doubts] == ["zero_gradients", "noise_beats_attack"]
