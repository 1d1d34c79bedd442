"""The paper's losses (section 3), and what selects a model.

    inner   L_CLM(theta, K): -log p(token | prefix, tokens before it), mean over a fact's tokens, then over facts
    outer   L_CE(f(x), y) + L_CLM(theta_N, K')    (equation 5);  f is the model under theta_N, which holds K

K are the given facts, x is the question, y its answer, K' the facts that matter for x. With several questions about one
K the outer loss is their mean. The released code has one string "y because K'" in place of the sum, the default here
(method.target=multi): the first term alone, over all its tokens. A single-task model (target=single) says y.
"""

from collections.abc import Sequence

from torch import Tensor

from common.engine.weights import Weights
from common.language.batch import Rows
from common.language.objective import Losses, mean_loss
from common.run.results import Selection
from reckoning.problems import Question

SELECTION = Selection("accuracy")
"""Of labels, on dev."""


def knowledge_loss(losses: Losses, weights: Weights, facts: Rows) -> Tensor:
    """The inner loss L_CLM(theta, K); [] or [problems]. A fact's index prefix is given and not scored."""
    return mean_loss(losses, weights, facts)


def answer_loss(losses: Losses, fast: Weights, questions: Rows, recited: Rows | None = None) -> Tensor:
    """The outer loss of questions with their targets; [] or [problems].

    `recited` are the facts K' of equation 5 taken literally, weighed by `recited_shares`; None leaves the sum's second
    term out.
    """
    loss = mean_loss(losses, fast, questions)
    return loss if recited is None else loss + mean_loss(losses, fast, recited)


def recited_shares(questions: Sequence[Question]) -> list[float]:
    """Weights of the relevant facts of all questions about one K: fact mean inside a question, then question mean."""
    return [1 / (len(question.relevant) * len(questions)) for question in questions for _ in question.relevant]
