"""What each defense costs a training step over standard training, in time and memory; and TVM of 1,000 images.

    python -m benchmarks.defenses [--steps 20] [--network small_cnn] [--only NAME ...] [--threads 2]

Generated images of MNIST's shape, batches of 128, defaults of each defense, on the CPU. Each is trained in a process
of its own, for one epoch that is not counted and one that is; both wall and processor seconds are printed, since the
first are those of the machine as it was. In the counted epoch wnll interpolates; the others cost what standard does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import torch

from attacks.draws import Draws
from attacks.threat import Threat
from defenses import DEFENSES, NETWORKS, Data, Training
from defenses.total_variation import minimise_total_variation
from orchestrator.peak_memory import forget_peak, peak_memory_bytes

BATCH = 128
TVM_IMAGES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--network", default="small_cnn", choices=sorted(NETWORKS))
    parser.add_argument("--only", nargs="*", default=list(DEFENSES), choices=list(DEFENSES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.one:
        print(json.dumps(measured(given.one, given.network, given.steps)))
        return
    shared = ["--steps", str(given.steps), "--network", given.network, "--threads", str(given.threads)]
    print(f"{given.network}, batches of {BATCH}, {given.steps} steps, {given.threads} threads, seed 0")
    yardstick: dict[str, float] = {}
    for name in dict.fromkeys(["standard", *given.only]):
        command = [sys.executable, "-m", "benchmarks.defenses", "--one", name, *shared]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        yardstick = yardstick or found
        print(
            f"{name:16} {1e3 * found['wall']:8.1f} ms a step, {1e3 * found['cpu']:8.1f} of processors, "
            f"{found['cpu'] / yardstick['cpu']:5.1f} times standard; peak {found['peak'] / 2**20:6.0f} MiB, "
            f"{(found['peak'] - yardstick['peak']) / 2**20:+6.0f}"
        )
    wall, cpu = rebuilding()
    print(f"tvm of {TVM_IMAGES} 28x28 images, 50 iterations: {wall:.2f} s, {cpu:.2f} of processors, the best of three")


def measured(name: str, network: str, steps: int) -> dict[str, float]:
    """Seconds a step, of the clock and of the processors, and the most memory the process had in it."""
    data = pictures(steps * BATCH)
    training = Training(epochs=2, batch_size=BATCH, lr=0.01, threat=Threat("linf", 0.1))
    epochs = DEFENSES[name]().fit(NETWORKS[network](), data, training, Draws(0, torch.arange(len(data))))
    next(epochs)
    forget_peak("cpu")
    wall, cpu = time.perf_counter(), time.process_time()
    next(epochs)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall": wall / steps, "cpu": cpu / steps, "peak": float(peak_memory_bytes("cpu"))}


def rebuilding() -> tuple[float, float]:
    x = pictures(TVM_IMAGES).images.float() / 255
    is_kept = torch.rand(TVM_IMAGES, 1, 28, 28, generator=torch.Generator().manual_seed(1)) >= 0.5
    found = []
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        minimise_total_variation(x, is_kept, 0.03, 50)
        found.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(found)


def pictures(count: int) -> Data:
    """Ten classes of even pictures with noise."""
    generator, labels = torch.Generator().manual_seed(0), torch.arange(count) % 10
    noise = torch.randint(0, 80, (count, 1, 28, 28), generator=generator)
    return Data((noise + 15 * labels[:, None, None, None]).clamp(max=255).to(torch.uint8), labels, 10)


if __name__ == "__main__":
    main()
