"""What each problem type means in training: one file and one object for each."""

from rmaat.training.problems.base import Prediction, Problem
from rmaat.training.problems.multi_label import LabelSetPrediction, MultiLabel
from rmaat.training.problems.next_token import NextToken
from rmaat.training.problems.regression import NumberPrediction, Regression
from rmaat.training.problems.single_label import ClassPrediction, SingleLabel

PROBLEMS: dict[str, Problem] = {
    problem.name: problem for problem in (SingleLabel(), MultiLabel(), Regression(), NextToken())
}
"""The object of each of `rmaat.problems.PROBLEM_TYPES`."""

__all__ = [
    "PROBLEMS",
    "ClassPrediction",
    "LabelSetPrediction",
    "MultiLabel",
    "NumberPrediction",
    "Prediction",
    "Problem",
]
