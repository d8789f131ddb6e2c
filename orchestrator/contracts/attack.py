"""What every attack promises, in every norm it takes: allowed images, and no dependence on what it may not see."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from attacks.attack import Attack
from attacks.draws import Draws
from attacks.threat import NORMS, Threat
from orchestrator.contracts.claim import Broken, Claim, must, over
from orchestrator.contracts.linear_problem import SHAPE, LinearProblem, linear_problem
from orchestrator.contracts.unhelpful_models import Blind, Jitter

EPS = {"linf": 0.1, "l2": 0.8, "l1": 3.0}  # for pictures of 3x4x4
FACTORS = (0.01, 1.0, 100.0)
BLINDNESS = ("argmax", "constant", "nan")


def conv_model(classes: int = 5) -> nn.Module:
    """Every habit of a real model: batch norm, dropout, a frozen parameter, weights drawn without the global seed."""
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(128, classes))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    model[0].bias.requires_grad_(False)
    return model.eval()


def pictures(examples: int = 9) -> tuple[Tensor, Tensor, Draws]:
    """Images with walls: a fifth of the pixels are 0 or 1."""
    draws = Draws(21, torch.arange(100, 100 + examples))
    return draws.uniform(*SHAPE, low=-0.125, high=1.125).clamp(0, 1), torch.arange(examples) % 5, draws


def refusal(attack: Attack, norm: str) -> str | None:
    """What the attack says against a norm that it does not take; None where it takes it."""
    x, y, draws = pictures()
    try:
        attack(conv_model(), x, y, Threat(norm, EPS[norm]), draws)
    except ValueError as error:
        return str(error)
    return None


def fools_a_linear_model_just_beyond_its_known_distance(attack: Attack, norm: str) -> None:
    problem, adversarial = _on_a_line(attack, norm, 1.05)
    held = len(problem.y) - int(_fooled(problem, adversarial).sum())
    must(held == 0, f"{held} of {len(problem.y)} images hold at 1.05 times their distance")


def fools_nobody_below_the_known_distance(attack: Attack, norm: str) -> None:
    problem, adversarial = _on_a_line(attack, norm, 0.95)
    fell = int(_fooled(problem, adversarial).sum())
    must(fell == 0, f"{fell} of {len(problem.y)} images fall at 0.95 times their distance, where none can")


def stays_in_ball_and_box(attack: Attack, norm: str, factor: float) -> None:
    (x, y, draws), threat = pictures(), Threat(norm, factor * EPS[norm])
    adversarial = attack(conv_model(), x, y, threat, draws)
    outside = int((~threat.allows(x, adversarial)).sum())
    must(outside == 0, f"{outside} of {len(x)} answers lie outside; the longest is {_longest(threat, x, adversarial)}")


def moves_every_image(attack: Attack, norm: str, factor: float) -> None:
    """But for those that the model gets wrong, where an attack seeks the nearest: that is the image itself."""
    (x, y, draws), threat, model = pictures(), Threat(norm, factor * EPS[norm]), conv_model()
    is_still = threat.distance(x, attack(model, x, y, threat, draws)) == 0
    with torch.no_grad():
        is_right = model(x).argmax(1) == y
    still = int((is_still & (is_right | (not hasattr(attack, "nearest")))).sum())
    must(still == 0, f"{still} of {len(x)} images are given back as they were")


def nothing_changes_at_eps_zero(attack: Attack, norm: str) -> None:
    x, y, draws = pictures()
    adversarial = attack(conv_model(), x, y, Threat(norm, 0.0), draws)
    must(torch.equal(adversarial, pictures()[0]), "an image differs")
    must(adversarial.data_ptr() != x.data_ptr(), "the answer is the argument itself, not a copy")


def answers_with_plain_tensors_and_leaves_its_arguments_alone(attack: Attack, norm: str) -> None:
    x, y, draws = pictures()
    given = x.clone(), y.clone(), draws.example_ids.clone()
    adversarial = attack(conv_model(), x, y, Threat(norm, EPS[norm]), draws)
    seen = adversarial.shape, adversarial.dtype, adversarial.requires_grad
    wanted = x.shape, x.dtype, False
    must(seen == wanted, f"shape, type and requires_grad are {_plain(seen)}, those of x are {_plain(wanted)}")
    must(adversarial.data_ptr() != x.data_ptr(), "the answer is the argument itself, not a copy")
    same = [torch.equal(a, b) for a, b in zip(given, (x, y, draws.example_ids), strict=True)]
    must(all(same), "x, y or the example ids were changed")


def leaves_the_model_as_found(attack: Attack, norm: str, is_training: bool) -> None:
    model = conv_model().train(is_training)
    model[1].train(not is_training)  # type: ignore[index]  # modes may be mixed
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    before = copy.deepcopy(model)
    x, y, draws = pictures()
    attack(model, x, y, Threat(norm, EPS[norm]), draws)
    must([m.training for m in model.modules()] == [m.training for m in before.modules()], "a layer changed its mode")
    for found, left in zip(before.parameters(), model.parameters(), strict=True):
        must(torch.equal(found, left), "a parameter changed")
        must(left.grad is not None and bool((left.grad == 7).all()), "the gradient of a parameter changed")
        must(found.requires_grad == left.requires_grad, "a parameter's requires_grad changed")
    buffers = zip(before.buffers(), model.buffers(), strict=True)
    must(all(torch.equal(a, b) for a, b in buffers), "a buffer changed, such as the statistics of batch norm")


def leaves_the_model_as_found_when_it_breaks(attack: Attack, norm: str) -> None:
    model = nn.Sequential(conv_model().train(), nn.Linear(4, 2))  # 5 features meet 4
    x, y, draws = pictures()
    try:
        attack(model, x, y, Threat(norm, EPS[norm]), draws)
    except RuntimeError:
        modes = [module.training for module in model.modules() if module is not model]
        must(all(modes), "a layer changed its mode")
        flags = [parameter.requires_grad for parameter in model.parameters()]
        must(flags == [True, False] + [True] * 6, "a parameter's requires_grad changed")
        return
    raise Broken("the model's error was kept")


def attacks_the_model_in_eval_mode(attack: Attack, norm: str) -> None:
    (x, y, draws), threat = pictures(), Threat(norm, EPS[norm])
    in_eval, in_training = (attack(model, x, y, threat, draws) for model in (conv_model(), conv_model().train()))
    must(torch.equal(in_eval, in_training), "it answers otherwise where the model is in training mode")


def the_same_draws_give_the_same_answer_whatever_the_global_seed(attack: Attack, norm: str) -> None:
    (x, y, draws), model, answers = pictures(), conv_model(), []
    kept = torch.get_rng_state()
    try:
        for seed in (0, 1):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            answers.append(attack(model, x, y, Threat(norm, EPS[norm]), draws))
            must(torch.equal(torch.get_rng_state(), before), "it draws from torch's global generator, not from draws")
    finally:
        torch.set_rng_state(kept)
    must(torch.equal(*answers), "two calls with the same draws answer differently")


def the_answer_does_not_depend_on_the_batch(attack: Attack, norm: str, size: int) -> None:
    """In float64: what a model rounds differently in another batch must not blur a dependence."""
    (x, y, draws), threat, model = pictures(), Threat(norm, EPS[norm]), conv_model().double()
    x = x.double()
    whole = attack(model, x, y, threat, draws)
    rows = torch.split(torch.arange(9), size)
    parts = [attack(model, x[i], y[i], threat, draws.select(i)) for i in rows]
    _must_be_close(torch.cat(parts), whole, f"in batches of {size}")


def the_answer_does_not_depend_on_the_order(attack: Attack, norm: str) -> None:
    (x, y, draws), threat, model = pictures(), Threat(norm, EPS[norm]), conv_model().double()
    x, order = x.double(), torch.tensor([3, 8, 0, 5, 1, 7, 2, 6, 4])
    whole = attack(model, x, y, threat, draws)
    shuffled = attack(model, x[order], y[order], threat, draws.select(order))
    _must_be_close(shuffled, whole[order], "in another order")


def works_under_no_grad_with_the_same_answer(attack: Attack, norm: str) -> None:
    (x, y, draws), threat = pictures(), Threat(norm, EPS[norm])
    free = attack(conv_model(), x, y, threat, draws)
    with torch.no_grad():
        must(torch.equal(attack(conv_model(), x, y, threat, draws), free), "the answer is another")


def an_empty_batch_gives_an_empty_answer(attack: Attack, norm: str) -> None:
    x, y, draws = pictures()
    none = slice(0, 0)
    empty = Draws(0, draws.example_ids[none])
    seen = attack(conv_model(), x[none], y[none], Threat(norm, EPS[norm]), empty).shape
    must(seen == (0, *SHAPE), f"its shape is {list(seen)}")


def a_model_without_gradient_gets_an_allowed_answer(attack: Attack, norm: str, how: str) -> None:
    (x, y, draws), threat = pictures(), Threat(norm, EPS[norm])
    answer = attack(Blind(how), x, y % 2, threat, draws)
    must(threat.allows(x, answer).all(), f"an answer is outside; the longest is {_longest(threat, x, answer)}")


def a_stochastic_model_draws_anew_at_each_look_and_by_example(attack: Attack, norm: str) -> None:
    jitter = Jitter()
    model = nn.Sequential(jitter, conv_model()).double()
    (x, y, draws), threat = pictures(), Threat(norm, EPS[norm])
    whole = attack(model, x.double(), y, threat, draws)
    again = len(jitter.seen) - len(set(jitter.seen))
    must(jitter.seen, "it never asks the model")
    must(again == 0, f"{again} of {len(jitter.seen)} looks at the model meet noise that an earlier look has met")
    part = attack(model, x[4:].double(), y[4:], threat, draws.select(torch.arange(4, 9)))
    _must_be_close(part, whole[4:], "of a stochastic model, without the first four images")
    must(jitter.draws is None, "the model keeps the draws that it was lent")


CLAIMS = (
    Claim(stays_in_ball_and_box, over(norm=NORMS, factor=FACTORS)),
    Claim(nothing_changes_at_eps_zero, over(norm=NORMS)),
    Claim(answers_with_plain_tensors_and_leaves_its_arguments_alone, over(norm=NORMS)),
    Claim(leaves_the_model_as_found, over(norm=NORMS, is_training=(True, False))),
    Claim(leaves_the_model_as_found_when_it_breaks, over(norm=NORMS)),
    Claim(attacks_the_model_in_eval_mode, over(norm=NORMS)),
    Claim(the_same_draws_give_the_same_answer_whatever_the_global_seed, over(norm=NORMS)),
    Claim(the_answer_does_not_depend_on_the_batch, over(norm=NORMS, size=(1, 4))),
    Claim(the_answer_does_not_depend_on_the_order, over(norm=NORMS)),
    Claim(works_under_no_grad_with_the_same_answer, over(norm=NORMS)),
    Claim(an_empty_batch_gives_an_empty_answer, over(norm=NORMS)),
    Claim(a_model_without_gradient_gets_an_allowed_answer, over(norm=NORMS, how=BLINDNESS)),
    Claim(a_stochastic_model_draws_anew_at_each_look_and_by_example, over(norm=NORMS)),
    Claim(fools_nobody_below_the_known_distance, over(norm=NORMS)),
    Claim(fools_a_linear_model_just_beyond_its_known_distance, over(norm=NORMS), is_law=False),
    Claim(moves_every_image, over(norm=NORMS, factor=(1.0,)), is_law=False),
)


def _on_a_line(attack: Attack, norm: str, factor: float) -> tuple[LinearProblem, Tensor]:
    problem = linear_problem()
    threat = Threat(norm, factor * problem.distance[norm])
    return problem, attack(problem.model, problem.x, problem.y, threat, problem.draws)


def _fooled(problem: LinearProblem, adversarial: Tensor) -> Tensor:
    with torch.no_grad():
        return problem.model(adversarial).argmax(1) != problem.y  # type: ignore[no-any-return]


def _must_be_close(seen: Tensor, wanted: Tensor, when: str) -> None:
    must(seen.shape == wanted.shape, f"{when} the shape is {list(seen.shape)}, not {list(wanted.shape)}")
    apart = float((seen - wanted).abs().max())
    must(apart <= 1e-9, f"{when} a pixel differs by {apart:.3g}")


def _longest(threat: Threat, x: Tensor, adversarial: Tensor) -> str:
    return f"{float(threat.distance(x, adversarial).max()):.4g} in {threat.norm}, eps {threat.eps:.4g}"


def _plain(seen: tuple[torch.Size, torch.dtype, bool]) -> str:
    return f"{list(seen[0])}, {seen[1]}, {seen[2]}"
