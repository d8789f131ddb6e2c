"""Claims about models that do not fit into memory with a whole batch: the same answer, in smaller parts."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
import torch
from test_evaluation import IMAGES, LABELS, LINF, Ramp, ramp_images
from torch import Tensor, nn

from orchestrator import evaluate_robustness
from orchestrator.batching import Batching, EvaluationOutOfMemory
from orchestrator.evaluation import Robustness

CPU = torch.device("cpu")


def of_the_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation")


def of_the_cpu() -> None:
    torch.empty(2**50)  # a real refusal of the allocator: a petabyte


class Narrow(nn.Module):
    """Room for `most` images; from `calls` calls on, as when something else takes the memory."""

    def __init__(self, most: int, fault: Callable[[], None] = of_the_gpu, calls: int = 0) -> None:
        super().__init__()
        self.most, self.fault, self.calls = most, fault, calls
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        if len(self.seen) > self.calls and len(x) > self.most:
            self.fault()
        logits: Tensor = Ramp()(x)
        return logits


def judged(model: nn.Module, images: Tensor = IMAGES, labels: Tensor = LABELS) -> Robustness:
    attacks = [{"name": "noise"}, {"name": "pgd", "steps": 3, "restarts": 2}]
    return evaluate_robustness(model, images, labels, threat=LINF, attacks=attacks, eps=[0.05])


@pytest.fixture(scope="module")
def whole() -> Robustness:
    return judged(Ramp())


@pytest.mark.parametrize(
    ("most", "calls", "fault"),
    [(4, 0, of_the_gpu), (1, 0, of_the_gpu), (2, 3, of_the_cpu), (2, 9, of_the_gpu), (1, 20, of_the_gpu)],
)
def test_the_answer_is_that_of_a_model_which_fits(
    most: int, calls: int, fault: Callable[[], None], whole: Robustness
) -> None:
    """Costs too: passes that failed are not counted."""
    model = Narrow(most, fault, calls)
    found = judged(model)
    assert max(model.seen) == 5
    assert model.seen[-1] <= most
    assert torch.equal(found.adversarials, whole.adversarials)
    assert found.doubts == whole.doubts
    without = [name for name in whole.per_attack if name != "seconds"]
    pd.testing.assert_frame_equal(found.per_attack[without], whole.per_attack[without])
    pd.testing.assert_frame_equal(found.per_example, whole.per_example)


def test_what_was_too_much_once_is_not_tried_again() -> None:
    model = Narrow(4)
    judged(model, ramp_images(*[0.9] * 64), torch.ones(64, dtype=torch.long))
    assert [size for size in model.seen if size > 4] == [64, 32, 16, 8]


def test_not_one_image_ends_in_one_sentence() -> None:
    with pytest.raises(
        EvaluationOutOfMemory, match=r"^out of memory on cpu with one image at a time: CUDA out of memor"
    ):
        judged(Narrow(0))


def test_any_other_error_is_not_answered_with_a_smaller_batch() -> None:
    class Broken(Ramp):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match=r"^mat1 and mat2"):
        judged(Broken())


def test_every_row_is_worked_on_once_and_in_order() -> None:
    batching, tried = Batching(8, CPU), list[int]()

    def work(rows: Tensor) -> list[int]:
        tried.append(len(rows))
        if len(rows) > 3:
            of_the_gpu()
        return [int(row) for row in rows]

    assert [row for part in batching.each(torch.arange(21), work) for row in part] == list(range(21))
    assert tried == [8, 4, *[2] * 10, 1]
    assert batching.each(torch.arange(0), work) == []
