"""Flower's ClientApp: a node trains its clients, by the same step as everywhere.

A node keeps nothing: what a client needs comes with the order, so that one that was killed is started again at will.
"""

from functools import lru_cache
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from common.errors import UserError
from fal.flower.config import held_by
from fal.flower.messages import Order, of_updates, refusal
from fal.flower.settings import Settings, read
from fal.states import ClientStates, ServerState

app = ClientApp()


@app.query()
def introduce(message: Message, context: Context) -> Message:
    """Who the node is."""
    try:
        settings = node(context)
        return Message(settings.card(own(context, settings)).record(), reply_to=message)
    except UserError as error:
        return Message(refusal(error), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """The updates of the clients that the order names, or why there are none."""
    try:
        federation = node(context).parts.federation
    except UserError as error:
        return Message(refusal(error), reply_to=message)
    order = Order.of(message.content, federation.images[0].device)
    federation.server = ServerState(order.start.weights, order.start.buffers, order.start.variate)
    federation.states = ClientStates(dict(order.variates))
    works = {client: federation.work(federation.clients[client], order.round) for client in order.clients}
    updates = federation.train({c: work for c, work in works.items() if work is not None}, order.round)
    return Message(of_updates(updates), reply_to=message)


def node(context: Context) -> Settings:
    """What the node works by: its own file if it was started with one, else the server's."""
    return settings_of(Path(str(context.node_config.get("settings") or context.run_config["settings"])))


settings_of = lru_cache(maxsize=1)(read)
"""Once a process: Flower may keep one for several rounds."""


def own(context: Context, settings: Settings) -> list[int]:
    """The node's clients."""
    place, nodes = int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    return held_by(place, nodes, len(settings.parts.federation.clients))
