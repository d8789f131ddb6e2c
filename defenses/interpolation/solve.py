"""The linear system of an interpolation over a graph, with the gradient of its solution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

DENSE = 1024
"""Up to so many unknowns the system is solved as a dense matrix, above by conjugate gradients."""

_RIDGE = 1e-8
_TOLERANCE = 1e-12


def harmonic(weights: Tensor, rows: Tensor, columns: Tensor, anchored: Tensor, dense: int = DENSE) -> Tensor:
    """The scores u of B unknowns: for each i, sum_e w_e (u_i - u_j) + sum_y a_iy (u_i - g_y) = 0.

    Edge e joins the unknowns `rows[e]` and `columns[e]` both ways; `anchored` [B, K] sums a_iy over the templates y
    of each class. Everything float64. An unknown that no path joins to a template gets 1 / K: a pull of 1e-8 towards
    that keeps the system definite. The gradient is that of the solution, by one more solve. -> [B, K]
    """
    found: Tensor = _Harmonic.apply(weights, anchored, rows, columns, dense)
    return found


@dataclass(frozen=True, eq=False)
class _System:
    """(D - W) u = b, symmetric and diagonally dominant."""

    weights: Tensor
    rows: Tensor
    columns: Tensor
    diagonal: Tensor  # [B]
    dense: int

    def solve(self, b: Tensor, start: Tensor) -> Tensor:
        """[B, K] -> [B, K]"""
        if len(b) > self.dense:
            u, is_solved = self._by_conjugate_gradients(b, start)
            if is_solved:
                return u
        exact: Tensor = torch.linalg.solve(self._matrix(), b)
        return exact

    def times(self, u: Tensor) -> Tensor:
        out = self.diagonal[:, None] * u
        out.index_add_(0, self.rows, -self.weights[:, None] * u[self.columns])
        return out.index_add_(0, self.columns, -self.weights[:, None] * u[self.rows])

    def _matrix(self) -> Tensor:
        count, flat = len(self.diagonal), self.diagonal.diag().flatten()
        flat.index_add_(0, self.rows * count + self.columns, -self.weights)
        flat.index_add_(0, self.columns * count + self.rows, -self.weights)
        return flat.view(count, count)

    def _by_conjugate_gradients(self, b: Tensor, u: Tensor) -> tuple[Tensor, bool]:
        """All right-hand sides at once, preconditioned by the diagonal (Hestenes, Stiefel 1952)."""
        residual = b - self.times(u)
        size = b.norm(dim=0).clamp(min=torch.finfo(b.dtype).tiny)
        z = residual / self.diagonal[:, None]
        direction, product = z, (residual * z).sum(0)
        for _ in range(2 * len(b)):
            if bool((residual.norm(dim=0) <= _TOLERANCE * size).all()):
                return u, True
            image = self.times(direction)
            length = _ratio(product, (direction * image).sum(0))
            u, residual = u + length * direction, residual - length * image
            z = residual / self.diagonal[:, None]
            before, product = product, (residual * z).sum(0)
            direction = z + _ratio(product, before) * direction
        return u, False


class _Harmonic(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, anchored: Tensor, rows: Tensor, columns: Tensor, dense: int) -> Tensor:
        classes = anchored.shape[1]
        diagonal = anchored.sum(1) + _RIDGE
        diagonal.index_add_(0, rows, weights).index_add_(0, columns, weights)
        system = _System(weights, rows, columns, diagonal, dense)
        u = system.solve(anchored + _RIDGE / classes, torch.full_like(anchored, 1 / classes))
        ctx.system = system
        ctx.save_for_backward(u)
        return u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        (u,), system = ctx.saved_tensors, ctx.system
        adjoint = system.solve(gradients[0], torch.zeros_like(u))
        rows, columns = system.rows, system.columns
        of_weights = -((adjoint[rows] - adjoint[columns]) * (u[rows] - u[columns])).sum(1)
        return of_weights, adjoint - (adjoint * u).sum(1, keepdim=True), None, None, None


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """0 where a right-hand side is solved already and there is nothing to divide by."""
    return torch.where(below == 0, 0.0, above / torch.where(below == 0, 1.0, below))
