"""A linear classifier of two classes, whose distance to the boundary is a formula in every norm."""

from orchestrator.contracts.linear_problem import SHAPE, LinearProblem, linear_problem

__all__ = ["SHAPE", "LinearProblem", "linear_problem"]
