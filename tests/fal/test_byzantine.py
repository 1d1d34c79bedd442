"""Byzantine clients: what they send, that robust rules hold against them, and what a false loss is worth to SFAT."""

from typing import Any

import pytest
import torch

from common.errors import UserError
from fal.byzantine import Byzantine, deviations
from fal.federation import Federation
from fal.server import norm, slack_shares
from fal.trust import Aggregator, AggregatorConfig, ByzantineConfig, Fraud
from tests.fal.small import CLASSES, apart, federation, trained


def with_fraud(name: str, aggregator: AggregatorConfig | None = None, clients: int = 2, **keys: Any) -> Federation:
    found = federation("sfat" if "claim" in keys else "fat", 8, aggregator=aggregator)
    config = ByzantineConfig(Fraud(name), clients, **keys)
    found.byzantine = Byzantine.of(config, 0, 8, found.images[1], CLASSES)
    return found


def updates_of(found: Federation) -> Any:
    works = {client.number: found.work(client, 2) for client in found.clients}
    return found.collected(works, 2).updates  # type: ignore[arg-type]


def test_what_they_send() -> None:
    honest = updates_of(with_fraud("none", clients=0))
    bad = with_fraud("sign_flip", scale=3.0)
    assert bad.byzantine is not None and len(bad.byzantine.clients) == 2
    for name, keys in (("sign_flip", {"scale": 3.0}), ("noise", {"scale": 2.0}), ("alie", {}), ("label_flip", {})):
        sent = updates_of(with_fraud(name, **keys))
        for client, update in sent.items():
            own = honest[client].delta
            if client not in bad.byzantine.clients:
                assert apart(update.delta, own) == 0
            elif name == "sign_flip":
                assert apart(update.delta, {key: -3 * w for key, w in own.items()}) == 0
            elif name == "noise":
                assert norm(update.delta) == pytest.approx(2 * norm(own))
            else:
                assert apart(update.delta, own) > 1e-3


def test_a_fraud_without_size_is_refused() -> None:
    with pytest.raises(UserError, match="byzantine.scale=0: use a number above 0"):
        ByzantineConfig(Fraud.noise, 1, scale=0.0)


def test_clients_of_whom_none_is_honest_are_refused() -> None:
    with pytest.raises(UserError, match="byzantine.clients=8 of 8: none is honest; use less than 8"):
        with_fraud("noise", clients=8)


def test_a_little_is_enough_hides_among_the_honest() -> None:
    """24 of 50: 2 supporters are needed among 26 honest, so a share of 24 / 26 may lie on the other side."""
    assert deviations(50, 24) == pytest.approx(1.4261, abs=1e-3)
    sent = updates_of(with_fraud("alie"))
    bad = with_fraud("alie").byzantine
    assert bad is not None
    first, second = sorted(bad.clients)
    assert apart(sent[first].delta, sent[second].delta) == 0


@pytest.mark.parametrize(
    "rule",
    [
        AggregatorConfig(Aggregator.median), AggregatorConfig(Aggregator.trimmed_mean, trimmed=2),
        AggregatorConfig(Aggregator.krum, byzantine=2), AggregatorConfig(Aggregator.geometric_median, iterations=20),
    ],
    ids=lambda rule: rule.name,
)  # fmt: skip
def test_robust_rules_hold_where_the_mean_does_not(rule: AggregatorConfig) -> None:
    honest = trained(federation("fat", 8))
    mean = apart(trained(with_fraud("sign_flip", scale=50.0)), honest)
    assert apart(trained(with_fraud("sign_flip", rule, scale=50.0)), honest) < 0.2 * mean


def test_a_false_loss_wins_sfats_weight() -> None:
    found = with_fraud("sign_flip", clients=1, claim=0.0)
    assert found.byzantine is not None
    (liar,) = found.byzantine.clients
    sent = updates_of(found)
    shares = slack_shares([update.adversarial_loss for update in sent.values()], [1.0] * 8, found.method)("w")
    assert shares[list(sent).index(liar)] == max(shares) == pytest.approx(1.4 / 8.4)


def test_who_is_byzantine_is_a_matter_of_the_seed() -> None:
    y = torch.zeros(4, dtype=torch.long)
    config = ByzantineConfig(Fraud.noise, 2)
    chosen = [Byzantine.of(config, seed, 10, y, 3).clients for seed in range(20)]
    assert len(set(chosen)) > 5 and all(len(each) == 2 for each in chosen)
    assert Byzantine.of(config, 3, 10, y, 3).clients == chosen[3]
    with pytest.raises(UserError, match="byzantine.clients=0 with byzantine=noise: use byzantine=none"):
        ByzantineConfig(Fraud.noise, 0)
    with pytest.raises(UserError, match="byzantine.clients=2 with byzantine=none"):
        ByzantineConfig(Fraud.none, 2)


def test_multi_krum_keeps_no_more_updates_than_come() -> None:
    with pytest.raises(UserError, match="aggregator.kept=9 of 8 updates: use 8 or less"):
        federation("fat", 8, aggregator=AggregatorConfig(Aggregator.multi_krum, byzantine=1, kept=9))
