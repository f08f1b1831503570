"""V, M and C as ONNX, each checked against torch by onnxruntime before anyone gets it.

Four graphs, each for any number of episodes at once:

    encoder     frame -> mu, logvar             decoder     z -> frame
    memory      z, act, h, c (, restart) -> h_next, c_next, log_pi, mu, log_sigma (, reward) (, done)
    controller  the states that C reads -> act, out (before the world's `squash`, which is inside)

Shapes: B episodes, Z latent, H hidden, A action, K mixtures.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wm.core.errors import UserError
from wm.dream.engine import takes_tensors
from wm.models.mdnrnn import MDNRNN
from wm.models.vae import VAE
from wm.play.agent import Agent
from wm.worlds.base import symexp

OPSET = 18
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""onnxscript is what torch's exporter asks for."""
FRAMES = 16
"""Frames that are compared."""
STEPS = 16
"""Steps of M and C that are compared, each from the state that the one before led to."""
LARGEST = 1e-4
"""What outputs may differ from torch's, a share of those that exceed 1; a frame, in whole numbers up to 255, by 1, and
by 2 in half precision."""
HALF_FROM = 1024
"""Weights with fewer numbers stay in single precision."""


@dataclass(frozen=True)
class OnnxModel:
    """One graph.

    Attributes:
        data: the ONNX file.
        inputs, outputs: {"name", "dtype", "shape"} of each; a shape's first is "batch".
        errors: the largest difference of each output from torch's.
    """

    data: bytes
    inputs: list[dict]
    outputs: list[dict]
    errors: dict[str, float]


class Encoder(nn.Module):
    """frame uint8 [B, 64, 64, 3] -> mu, logvar [B, Z]; the plain layers of `VAE.encode`."""

    names = ("mu", "logvar")

    def __init__(self, vae: VAE):
        super().__init__()
        self.vae = vae

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        flat = self.vae.encoder(frame.permute(0, 3, 1, 2).to(torch.float32) * (1.0 / 255.0)).flatten(1)
        return self.vae.mu(flat), self.vae.logvar(flat)


class Decoder(nn.Module):
    """z [B, Z] -> frame uint8 [B, 64, 64, 3]; the plain layers of `VAE.decode`."""

    names = ("frame",)

    def __init__(self, vae: VAE):
        super().__init__()
        self.vae = vae

    def forward(self, z: Tensor) -> Tensor:
        unit = torch.sigmoid(self.vae.decoder(self.vae.decoder_in(z)[:, :, None, None]))
        return (unit * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1)


class Memory(nn.Module):
    """M's step and all its heads: z, act, h, c (, restart) -> h_next, c_next, the mixture [B, K, Z], reward, done."""

    def __init__(self, mdnrnn: MDNRNN, symlog: bool = False):
        """`symlog`: M predicts that of a reward; here it is turned back."""
        super().__init__()
        self.mdnrnn, self.symlog = mdnrnn, symlog
        heads = {"reward": mdnrnn.reward, "done": mdnrnn.done}
        present = [name for name, head in heads.items() if head is not None]
        self.names = ("h_next", "c_next", "log_pi", "mu", "log_sigma", *present)

    def forward(
        self, z: Tensor, act: Tensor, h: Tensor, c: Tensor, restart: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        h, c = self.mdnrnn.step(z, act, (h, c), restart)
        mixture, reward, done = self.mdnrnn.heads(h)
        reward = symexp(reward) if self.symlog and reward is not None else reward
        return h, c, *mixture, *(head for head in (reward, done) if head is not None)


class Controller(nn.Module):
    """The states that C reads, in its order -> act, out [B, A]; what `Layout.apply` computes, then `squash`."""

    names = ("act", "out")

    def __init__(self, agent: Agent, params: np.ndarray):
        super().__init__()
        layout, flat = agent.layout, torch.from_numpy(params.copy())
        self.squash, self.layers, at = agent.world.squash, nn.ModuleList(), 0
        depths = [layout.inputs, layout.hidden] if layout.hidden else [layout.inputs]
        for index, depth in enumerate(depths):
            last = index == len(depths) - 1
            layer = nn.Linear(depth, layout.actions if last else layout.hidden, bias=layout.bias or not last)
            for weight in layer.parameters():  # the weight, then the bias: as they lie in the vector
                weight.data = flat[at : at + weight.numel()].view(weight.shape)
                at += weight.numel()
            self.layers.append(layer)

    def forward(self, *states: Tensor) -> tuple[Tensor, Tensor]:
        out = torch.cat(states, dim=1)
        for layer in self.layers[:-1]:
            out = torch.tanh(layer(out))
        out = self.layers[-1](out)
        return self.squash(out.clone()), out


def make(agent: Agent, params: np.ndarray, half: tuple[str, ...] = ()) -> dict[str, OnnxModel]:
    """The four graphs of an agent, each compared with torch.

    Args:
        params: [P] float32, C.
        half: names of graphs whose weights are kept in half precision (they compute in single precision).
    Raises:
        UserError: the packages are missing, the world's `squash` cannot be traced, or a graph does not compute what
            torch does.
    """
    _packages()
    if not takes_tensors(agent.world, agent.layout.actions):
        raise UserError(
            f"the squash of {type(agent.world).__name__} reads NumPy arrays only: make it take tensors too, "
            "so that it can be part of the exported controller"
        )
    made = {}
    with torch.no_grad():
        for name, module, calls in _graphs(agent, params):
            proto = _export(module, calls[0])
            if name in half:
                _halve(proto)
            data = proto.SerializeToString()
            errors = _errors(data, module, calls)
            _judge(name, errors, name in half)
            made[name] = OnnxModel(data, *_ports(proto), errors)
    return made


def _packages() -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX needs {', '.join(missing)}, not here yet: pip install 'world-models[export]'")


def _graphs(agent: Agent, params: np.ndarray) -> Iterator[tuple[str, nn.Module, list[dict[str, Tensor]]]]:
    """Each graph's name, its module, and the inputs on which it is compared: what V, M and C give one another."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(FRAMES, agent.mdnrnn.z_size, generator=generator)
    yield "decoder", Decoder(agent.vae), [{"z": z}]
    frame = agent.vae.decode(z).contiguous()
    yield "encoder", Encoder(agent.vae), [{"frame": frame}]
    symlog = agent.world.spec.symlog_rewards
    memory, controller = Memory(agent.mdnrnn, symlog), Controller(agent, params)
    steps, acts = [], []
    h, c = agent.mdnrnn.initial_state(FRAMES)
    for step in range(STEPS):
        states = {"z": z, "h": h, "c": c}
        acts.append({name: states[name] for name in agent.inputs})
        act = torch.from_numpy(agent.act(params[None].repeat(FRAMES, 0), z.numpy(), h.numpy(), c.numpy()))
        restart = {"restart": torch.full((FRAMES,), float(step == 0))} if agent.mdnrnn.reads_restart else {}
        steps.append({"z": z, "act": act, "h": h, "c": c, **restart})
        h, c, _, mu, *_ = memory(*steps[-1].values())
        z = mu[:, 0].contiguous()
    yield "memory", memory, steps
    yield "controller", controller, acts


def _export(module: nn.Module, inputs: dict[str, Tensor]) -> Any:
    """The graph as torch's exporter makes it, without what it notes of this machine."""
    import onnx

    batch = {0: torch.export.Dim("batch")}
    shapes = tuple(batch for _ in inputs)
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
            input_names=list(inputs),
            output_names=list(module.names),
            dynamic_shapes=(shapes,) if isinstance(module, Controller) else shapes,
        )
    proto = program.model_proto
    graph = proto.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer, graph, proto):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    graph.ClearField("value_info")
    graph.name = proto.producer_name = "world-models"
    proto.ClearField("producer_version")
    onnx.checker.check_model(proto, full_check=True)
    return proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's notes on packages that it could have used and on names that it will change."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def session(data: bytes) -> Any:
    """onnxruntime's, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _errors(data: bytes, module: nn.Module, calls: list[dict[str, Tensor]]) -> dict[str, float]:
    """The largest difference of each output from torch's, over all calls; relative where it exceeds 1."""
    runs, largest = session(data), dict.fromkeys(module.names, 0.0)
    for inputs in calls:
        expected = module(*inputs.values())
        expected = expected if isinstance(expected, tuple) else (expected,)
        found = runs.run(list(module.names), {name: tensor.numpy() for name, tensor in inputs.items()})
        for name, ours, theirs in zip(module.names, expected, found, strict=True):
            ours = ours.numpy().astype(np.float64)
            size = 1.0 if name == "frame" else np.maximum(np.abs(ours), 1.0)
            largest[name] = float(np.maximum(largest[name], (np.abs(ours - theirs) / size).max()))  # NaN stays NaN
    return largest


def _judge(graph: str, errors: dict[str, float], half: bool) -> None:
    for name, error in errors.items():
        if not error <= (1.0 + half if name == "frame" else LARGEST):
            raise UserError(
                f"the exported {graph} gives another {name} than torch does, by {error:.2g}: nothing was written; "
                "install the versions of onnx, onnxscript and onnxruntime that constraints.txt names"
            )


def _halve(proto: Any) -> None:
    """Large weights in half precision, made single again by a Cast where they are read."""
    from onnx import TensorProto, helper, numpy_helper

    graph, casts = proto.graph, []
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT and np.prod(weight.dims) >= HALF_FROM:
            name, values = weight.name, numpy_helper.to_array(weight)
            weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
            casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = list(graph.node)
    graph.ClearField("node")
    graph.node.extend([*casts, *nodes])


def _ports(proto: Any) -> tuple[list[dict], list[dict]]:
    """Inputs and outputs of a graph, as data."""
    from onnx import helper

    def port(value: Any) -> dict:
        kind = value.type.tensor_type
        shape = [dim.dim_param or dim.dim_value for dim in kind.shape.dim]
        return {"name": value.name, "dtype": str(helper.tensor_dtype_to_np_dtype(kind.elem_type)), "shape": shape}

    return [port(value) for value in proto.graph.input], [port(value) for value in proto.graph.output]
