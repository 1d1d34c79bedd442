"""A round of federated adversarial training by the libraries that offer one: fluke's FAT, and Flower's simulation.

Neither is among this repository's requirements. Flower comes with `make setup-flower`; fluke wants an environment of
its own (`python -m pip install fluke-fl==0.8.1`), with this repository on PYTHONPATH.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import psutil
from torch import Tensor, nn

from common.engine.weights import Weights
from common.errors import UserError
from fal.adversary.config import AttackConfig
from fal.client import Work

Images = tuple[Tensor, Tensor]


def library(name: str, way: str) -> Any:
    """A module of a library.

    Raises:
        UserError: it is not installed; `way` says how to.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"{name.partition('.')[0]} is not installed ({error.name}): {way}") from error


class Fluke:
    """fluke's `FAT`: clients with models of their own, attacked from the clean points, trained on both together."""

    def __init__(
        self, network: nn.Module, images: Images, works: Sequence[Work], attack: AttackConfig, rate: float
    ) -> None:
        """Every client has one batch, which it goes through once a step."""
        way = "python -m pip install fluke-fl==0.8.1, in an environment of its own"
        parts = {name: library(f"fluke.{name}", way) for name in ("algorithms.fat", "config", "data", "server")}
        optimiser = parts["config"].OptimizerConfigurator({"name": "SGD", "lr": rate})
        self.network = network
        self.clients = [
            parts["algorithms.fat"].FATClient(
                number, self._data(parts["data"], images, work), None, optimiser, nn.CrossEntropyLoss(),
                len(work.batches), eps=attack.eps, alpha=attack.length, adv_iters=attack.steps, persistency=False,
            )
            for number, work in enumerate(works)
        ]  # fmt: skip
        self.server = parts["server"].Server(network, None, self.clients)
        library("fluke", way).FlukeENV().open_cache("benchmark")
        for client in self.clients:
            client.set_channel(self.server.channel)

    @staticmethod
    def _data(module: Any, images: Images, work: Work) -> Any:
        own = [each[work.batches[0]] for each in images]
        return module.FastDataLoader(*own, num_labels=int(images[1].max()) + 1, batch_size=len(own[1]))

    def round(self, start: Weights) -> Weights:
        """The global weights after it, as its `CentralizedFL.run` goes about it, without evaluation and bars."""
        self.network.load_state_dict(start)
        self.server.broadcast_model(self.clients)
        for client in self.clients:
            client.local_update(1)
        self.server.aggregate(self.clients, self.server.receive_client_models(self.clients, state_dict=False))
        return {name: w.clone() for name, w in self.network.state_dict().items()}


def flower_rounds(
    clients: int, start: Weights, trained: Callable[[int, Weights], Weights], rounds: int
) -> tuple[list[float], Weights]:
    """CPU seconds that all processes of a simulation took for each round, and the weights after the first.

    Args:
        clients: how many; Flower's `FedAvg` takes their mean.
        start: the weights before the first round.
        trained: (client, global weights) -> its weights; is sent to the workers.
        rounds: how many, each from where the one before ended.
    """
    way = "make setup-flower"
    home = tempfile.mkdtemp(prefix="flower")
    os.environ |= {
        "FLWR_HOME": home, "FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": home
    }  # fmt: skip
    client_side, server_side = (library(f"flwr.{name}", way) for name in ("clientapp", "serverapp"))
    app, simulation = library("flwr.app", way), library("flwr.simulation", way)
    at_server, at_client = server_side.ServerApp(), client_side.ClientApp()
    times: list[float] = []
    after: dict[int, Weights] = {}

    @at_client.train()
    def train(message: Any, context: Any) -> Any:
        found = trained(int(context.node_config["partition-id"]), message.content["arrays"].to_torch_state_dict())
        records = {"arrays": app.ArrayRecord(found), "metrics": app.MetricRecord({"num-examples": 1})}
        return app.Message(content=app.RecordDict(records), reply_to=message)

    def told(number: int, arrays: Any) -> None:
        times.append(_spent())
        after[number] = arrays.to_torch_state_dict()

    @at_server.main()
    def serve(grid: Any, context: Any) -> None:
        strategy = server_side.strategy.FedAvg(
            fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients
        )
        strategy.start(grid, app.ArrayRecord(start), num_rounds=rounds, evaluate_fn=told)

    simulation.run_simulation(
        at_server, at_client, clients, backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0}}
    )
    return [b - a for a, b in zip(times, times[1:], strict=False)], after[1]


def _spent() -> float:
    """CPU seconds so far of this process and all that it has started."""
    total = time.process_time()
    for child in psutil.Process().children(recursive=True):
        try:
            its = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += its.user + its.system
    return total
