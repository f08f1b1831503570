"""What the paper reports, to stand beside our scores."""

from __future__ import annotations

from dataclasses import dataclass

CITATION = (
    "D. Ha and J. Schmidhuber, Recurrent World Models Facilitate Policy Evolution, NeurIPS 31, 2018 (arXiv:1803.10122)"
)


@dataclass(frozen=True)
class Row:
    """A method's mean score and its standard deviation over episodes.

    Attributes:
        quoted: the paper quotes it from others.
    """

    method: str
    mean: float
    std: float
    quoted: bool = False


SCORES = {
    "car_racing": (
        Row("World Models", 906, 21),
        Row("V alone, with a hidden layer", 788, 141),
        Row("V alone", 632, 251),
        Row("best of the leaderboard before", 838, 11, quoted=True),
        Row("A3C, discrete actions", 652, 10, quoted=True),
        Row("A3C, continuous actions", 591, 45, quoted=True),
        Row("DQN", 343, 18, quoted=True),
    ),
    "take_cover": (
        Row("World Models, tau 1.15", 1092, 556),
        Row("World Models, tau 1.00", 868, 511),
        Row("World Models, tau 0.10", 193, 58),
        Row("best of the leaderboard before", 820, 58, quoted=True),
        Row("random policy", 210, 108),
    ),
}
"""World -> the paper's tables 1 and 2, the paper's own method first."""

TEMPERATURES = {
    "take_cover": {
        0.10: ((2086, 140), (193, 58)),
        0.50: ((2060, 277), (196, 50)),
        1.00: ((1145, 690), (868, 511)),
        1.15: ((918, 546), (1092, 556)),
        1.30: ((732, 269), (753, 139)),
    }
}
"""World -> tau -> virtual and actual score, each (mean, standard deviation): the paper's table 2."""
