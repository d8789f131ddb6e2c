"""Ours and the peers' attacks on one model: processor seconds, passes and the robust accuracy that each leaves.

    python -m benchmarks.attacks --data DIR                         # DIR/MNIST/raw; hours on one core: 64 images first
    python -m benchmarks.attacks --data DIR --images 100 --cases fast square
    python -m benchmarks.attacks --data DIR --model plain           # a network that nothing defends

Needs pyautoattack, and for the case pgd foolbox and torchattacks. The network is LeNet, trained once by pgd_at in linf
and kept in ~/.cache/robustsweep; its parameters need gradients, as those of a model just trained do. Both sides get the
same images, which the network is right about, the same batches and one thread; seconds are those of the processor, so
that other work on the machine counts little. `ratio` is ours over the peer's, in one run.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from attacks import APGD, FAB, PGD, Draws, Square, Threat
from defenses.data import Data
from defenses.networks.lenet import LeNet
from defenses.pgd_at import PgdAT
from defenses.standard import Standard
from defenses.state import deployed
from defenses.training import Training
from orchestrator import evaluate_robustness
from orchestrator.cascade import AttackChoice
from orchestrator.datasets.mnist import Mnist
from orchestrator.passes import counted

CACHE = Path("~/.cache/robustsweep/benchmarks").expanduser()
EPS = {"linf": 0.1, "l2": 1.0, "l1": 8.0}
OURS: dict[str, AttackChoice] = {
    "autoattack": "autoattack",
    "fast": "fast",
    "audited": "audited",
    "apgd-ce": APGD(),
    "apgd-t": APGD(loss="dlr", targets=9),
    "fab-t": FAB(targets=9),
    "square": Square(),
    "pgd": PGD(steps=40),
}
BESIDE = {"fast": "autoattack", "audited": "autoattack"}  # what the peer runs, where it is not the same


def trained(kind: str, data: Path) -> nn.Module:
    """LeNet, from the cache or trained now; one for each kind, robust (eps 0.2 in linf) or plain."""
    file = CACHE / f"mnist_{kind}.pt"
    if not file.exists():
        print(f"training the {kind} network ...", flush=True)
        images, labels = (torch.from_numpy(array.copy()) for array in Mnist()(data, "train"))
        training = Training(epochs=4, optimizer="adam", lr=3e-3, weight_decay=0.0, threat=Threat("linf", 0.15))
        defense = PgdAT(steps=5) if kind == "robust" else Standard()
        chosen = Data(images[:10_000], labels[:10_000].long(), 10)
        *_, last = defense.fit(LeNet(), chosen, training, Draws(0, torch.arange(len(chosen))))
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(last.state, file)
    return deployed(torch.load(file, weights_only=True)).eval().requires_grad_()


def ours(case: str, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, batch: int) -> float:
    result = evaluate_robustness(model, x, y, threat=threat, attacks=OURS[case], batch_size=batch, doubts="off")
    for row in result.per_attack.itertuples():
        passes = f"{row.forward_passes:7.0f} forward {row.backward_passes:6.0f} backward on {row.n_attacked}"
        print(f"      {row.attack:<8}{row.robust_accuracy:8.2%}  {row.seconds:8.1f} s  {passes}", flush=True)
    return result.robust_accuracy


def official(case: str, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, batch: int) -> float:
    from pyautoattack import AutoAttack

    attack = AutoAttack(model, norm=threat.norm.capitalize(), eps=threat.eps, device="cpu", seed=0)
    if case != "autoattack":
        attack.attacks_to_run = [case]
    return accuracy(model, attack.run_standard_evaluation(x, y, bs=batch), y)


def foolbox_pgd(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, batch: int) -> float:
    import foolbox

    kind = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD, "l1": foolbox.attacks.L1PGD}[threat.norm]
    attack, asked = kind(steps=40, rel_stepsize=2.5 / 40), foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    parts = zip(x.split(batch), y.split(batch), strict=True)
    return accuracy(model, torch.cat([attack(asked, a, b, epsilons=threat.eps)[1] for a, b in parts]), y)


def torchattacks_pgd(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, batch: int) -> float:
    import torchattacks

    size = 2.5 * threat.eps / 40
    kind = torchattacks.PGD if threat.norm == "linf" else torchattacks.PGDL2
    attack = kind(model, eps=threat.eps, alpha=size, steps=40)
    return accuracy(model, torch.cat([attack(a, b) for a, b in zip(x.split(batch), y.split(batch), strict=True)]), y)


PEERS = {"pgd": {"foolbox": foolbox_pgd, "torchattacks": torchattacks_pgd}}


def accuracy(model: nn.Module, adversarial: Tensor, y: Tensor) -> float:
    return (model(adversarial).argmax(1) == y).float().mean().item()


def timed(name: str, work: Callable[[], float], model: nn.Module) -> float:
    began, on_the_clock = time.process_time(), time.perf_counter()
    with counted(model) as passes:
        left = work()
    seconds = time.process_time() - began
    clock = time.perf_counter() - on_the_clock
    cost = f"{seconds:8.1f} s ({clock:.0f} on the clock)  {passes.forward:>9,} forward {passes.backward:>9,} backward"
    print(f"   {name:<12}{left:8.2%}  {cost}", flush=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("~/data").expanduser())
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--norm", choices=EPS, default="linf")
    parser.add_argument("--eps", type=float)
    parser.add_argument("--model", choices=("robust", "plain"), default="robust")
    parser.add_argument("--cases", nargs="+", choices=OURS, default=list(OURS))
    parser.add_argument("--alone", action="store_true", help="without the peers")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")  # the peers'
    torch.set_num_threads(1)
    model = trained(chosen.model, chosen.data)
    images, labels = (torch.from_numpy(array.copy()) for array in Mnist()(chosen.data, "test"))
    x, y = images[: chosen.images].float() / 255, labels[: chosen.images].long()
    threat = Threat(chosen.norm, chosen.eps or EPS[chosen.norm])
    right = model(x).argmax(1) == y
    share = f"{right.float().mean():.1%} right"
    print(f"{chosen.model} LeNet on MNIST, {threat}, {len(x)} images, {share}, batch {chosen.batch}")
    x, y = x[right], y[right]
    known: dict[str, float] = {}
    for case in chosen.cases:
        print(case)
        spent = timed("ours", partial(ours, case, model, x, y, threat, chosen.batch), model)
        if chosen.alone:
            continue
        for name, peer in PEERS.get(case, {"official": partial(official, BESIDE.get(case, case))}).items():
            key = f"{name} {BESIDE.get(case, case)}"
            if key not in known:
                known[key] = timed(name, partial(peer, model, x, y, threat, chosen.batch), model)
            print(f"   ratio to {key}: {spent / known[key]:.2f}", flush=True)


if __name__ == "__main__":
    main()
