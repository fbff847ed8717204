"""Writes a network as ONNX, from the bytes of images to logits and probabilities (extra `vitbench[onnx]`)."""

from __future__ import annotations

import json
import logging
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitbench.data.loader import Normalise
from vitbench.errors import UserError
from vitbench.runs.record import Record
from vitbench.using.network import Exported, Network, described

INPUT, OUTPUTS = "images", ("logits", "probabilities")


class FromBytes(nn.Module):
    """A network that takes uint8 images (B,C,H,W), as they were decoded, and normalises them itself."""

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, normalise: Normalise) -> None:
        super().__init__()
        self.model = model
        # one value for each channel, (1,C,1,1)
        self.register_buffer("scale", normalise.scale[:, :, :1, :1].contiguous())
        self.register_buffer("shift", normalise.shift[:, :, :1, :1].contiguous())
        self.register_buffer("places", normalise.places)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if self.places is not None:
            images = images.flatten(2).index_select(2, self.places).view(images.shape)  # type: ignore[arg-type]
        logits = self.model(images.float() * self.scale + self.shift)
        return logits, logits.softmax(1)


def as_onnx(network: Network, record: Record) -> Exported:
    """Returns the file, and the function that computes logits with it by onnxruntime.

    Raises UserError where a package is missing, or torch cannot write the network as ONNX.
    """
    typed = f"run={record['id']} format=onnx"
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"{typed}: needs {error.name}: pip install 'vitbench[onnx]'") from None
    model = FromBytes(network.model, network.normalise).eval()
    size = record["image_size"]
    example = torch.zeros(2, record["channels"], size, size, dtype=torch.uint8)
    note = ""
    try:
        program = _program(model, example, {0: torch.export.Dim("batch")})
    except Exception:  # torch raises various errors where a layer needs a fixed number of images
        try:
            program, note = _program(model, example[:1], {}), "for one image at a time"
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"{typed}: torch cannot write this network as ONNX ({reason})") from None
    proto: Any = program.model_proto
    for key, value in described(record).items():
        proto.metadata_props.add(key=key, value=json.dumps(value, ensure_ascii=False))
    blob = proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings about optimisations are of no use here
    session = onnxruntime.InferenceSession(blob, options, providers=["CPUExecutionProvider"])
    at_a_time = 1 if note else len(example) * 10

    def logits(images: NDArray[np.uint8]) -> Tensor:
        parts = [images[first : first + at_a_time] for first in range(0, len(images), at_a_time)]
        return torch.cat([torch.from_numpy(session.run([OUTPUTS[0]], {INPUT: part})[0]) for part in parts])

    return Exported(blob, logits, note)


def _program(model: nn.Module, example: Tensor, dynamic: dict[int, Any]) -> Any:
    """Runs torch's exporter on the model, without its messages."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            return torch.onnx.export(
                model,
                (example,),
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=({**dynamic},) if dynamic else None,
                dynamo=True,
                verbose=False,
            )
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
