# SPDX-License-Identifier: Apache-2.0
"""A teacher that is an image classifier of transformers; needs the extra `huggingface`.

The weights file is the folder's safetensors with its config.json in the metadata, so that one hash covers both. The
network is one that transformers itself brings: code from a hub is never run, and nothing is fetched.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fedcpsc.errors import ManifestError, explain
from fedcpsc.teachers.content import Content
from fedcpsc.teachers.format import TeacherFormat
from fedcpsc.teachers.huggingface_files import PREPARATION, class_names, preparation, read_json
from fedcpsc.teachers.manifest import WEIGHTS_FILE, Manifest
from fedcpsc.teachers.recognised import Recognised, Source, against_file
from fedcpsc.teachers.state_dict import (
    as_safetensors,
    check_numbers,
    metadata_of,
    read_state,
    tensors_of,
    with_metadata,
)
from fedcpsc.teachers.timm_folder import recognise_timm
from fedcpsc.teachers.torch_teacher import TorchTeacher
from fedcpsc.teachers.trying import tried

__all__ = ["HUGGING_FACE"]

_CONFIG = "config.json"  # its name in the folder, and the key of its text in the metadata
_TASK = "ForImageClassification"


def load(weights: bytes, manifest: Manifest, batch_size: int) -> TorchTeacher:
    """The teacher of a safetensors file with its configuration in the metadata.

    Raises:
        ManifestError: where transformers is not installed or does not know the network, or the weights do not fit it.
    """
    try:
        config = json.loads(metadata_of(weights)[_CONFIG])
    except (KeyError, ValueError, RecursionError) as error:
        shown = "has no config.json in its metadata"
        raise ManifestError(explain("weights", WEIGHTS_FILE, shown, "adopt the folder again")) from error
    return TorchTeacher(_Logits(_network(config, tensors_of(weights, WEIGHTS_FILE))), manifest, batch_size)


class _Logits(nn.Module):
    """A classifier of transformers as one of images alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised images [N, C, H, W] -> logits [N, K]."""
        found: Tensor = self.network(pixel_values=pixels).logits
        return found


def _network(config: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    """The network with its weights, in evaluation mode.

    Raises:
        ManifestError: as `load`.
    """
    try:
        import transformers  # noqa: PLC0415 - an extra
    except ImportError as error:
        remedy = "install it: pip install 'fedcpsc[huggingface]'"
        raise ManifestError(explain("kind", "huggingface", "needs transformers", remedy)) from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    name, kind = _checked_name(config), config.get("model_type")
    own = {key: value for key, value in config.items() if "attn_implementation" not in key} | {"return_dict": True}
    try:
        settings = transformers.CONFIG_MAPPING[kind].from_dict(own)
        known = transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(settings)]
        (made,) = (each for each in (known if isinstance(known, tuple) else (known,)) if each.__name__ == name)
    except (KeyError, ValueError) as error:
        shown = f"is not among the image classifiers of transformers {transformers.__version__}"
        remedy = "upgrade transformers; code from a hub is not run: export such a model to ONNX"
        raise ManifestError(explain("architectures", f"{name} ({kind})", shown, remedy)) from error
    try:
        network, report = made.from_pretrained(
            None, config=settings, state_dict=state, output_loading_info=True, local_files_only=True, dtype="float32"
        )
    except Exception as error:  # whatever a configuration that does not fit causes
        shown = f"cannot be loaded ({str(error).partition(chr(10))[0][:150]})"
        raise ManifestError(explain("model", name, shown, "copy the folder again, or export it to ONNX")) from error
    wrong = {key: sorted(map(str, report[key])) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    wrong["missing_keys"] = [key for key in wrong["missing_keys"] if not key.endswith("num_batches_tracked")]
    if any(wrong.values()):
        counted = ", ".join(
            f"{len(keys)} {what.partition('_')[0]} ({keys[0][:80]})" for what, keys in wrong.items() if keys
        )
        shown = f"the weights do not fit it: tensors {counted}"
        raise ManifestError(explain("model", name, shown, "bring config.json and weights of one and the same training"))
    check_numbers(state, network.state_dict(), "model.safetensors")
    module: nn.Module = network.eval().requires_grad_(False)
    return module


def _checked_name(config: dict[str, Any]) -> str:
    """The name of the network's class.

    Raises:
        ManifestError: where it is no image classifier with one class for each image, or would fetch something.
    """
    name = (config.get("architectures") or [""])[0]
    if not isinstance(name, str) or _TASK not in name:
        shown = f"must be an image classifier, ...{_TASK}"
        raise ManifestError(explain("architectures", name, shown, "bring a model that was fitted to your classes"))
    if config.get("problem_type") not in (None, "single_label_classification"):
        shown = "gives several classes for one image, and a teacher gives one distribution over them"
        raise ManifestError(explain("problem_type", config["problem_type"], shown, "bring a single-label classifier"))
    fetching = [key for key in ("use_pretrained_backbone", "quantization_config", "use_kernels") if config.get(key)]
    if fetching:
        shown = f"{fetching[0]} needs weights or code beside this file"
        raise ManifestError(explain("config.json", name, shown, "save the whole model plainly, or export it to ONNX"))
    return name


def _recognise(source: Source) -> Recognised:
    """What a Hugging Face folder says of its model.

    Raises:
        ManifestError: where no teacher can be made of it.
    """
    config, hints = read_json(source.path / _CONFIG), source.hints
    if "architectures" not in config and isinstance(config.get("architecture"), str):
        return recognise_timm(source, config)
    name = _checked_name(config)
    names, number = class_names(config, source.path)
    channels = config.get("num_channels", 3)
    channels = channels if isinstance(channels, int) and channels > 0 else 3
    prepared = preparation(source.path, channels)
    own_shape = None if prepared.sides is None else (channels, *prepared.sides)
    shape = hints.image_shape or own_shape
    if shape is not None and shape[0] != channels:
        shown = f"the model takes {channels} channels, as {_CONFIG} says"
        raise ManifestError(explain("image_shape", shape, shown, f"say {channels}x{shape[1]}x{shape[2]}"))
    said = against_file(hints, own_shape, prepared.normalisation, PREPARATION)
    data, notes = _weights(source.path)
    facts = Recognised(
        kind="huggingface",
        architecture=name,
        outputs=number,
        image_shape=shape,
        channels=channels,
        class_names=names,
        normalisation=hints.normalisation or prepared.normalisation,
        resize=prepared.resize,
        notes=(*notes, *prepared.notes, *said),
        weights=with_metadata(data, {"format": "pt", _CONFIG: json.dumps(config)}),
    )
    del data
    return tried(facts, source, load)


def _weights(folder: Path) -> tuple[bytes, list[str]]:
    """Content of the folder's weights as safetensors, and sentences for the owner.

    Raises:
        ManifestError: where it has none that can be read.
    """
    whole, pickled = folder / "model.safetensors", folder / "pytorch_model.bin"
    if whole.exists():
        return whole.read_bytes(), []
    if pickled.exists():
        state, notes = read_state(pickled, Content.TORCH_SAVE, wrapped=False)
        return as_safetensors(state), notes
    parts = sorted(path.name for path in folder.glob("model*.safetensors"))
    shown = f"has its weights in {len(parts)} files" if parts else "has neither model.safetensors nor pytorch_model.bin"
    remedy = "save it as one: model.save_pretrained(folder, max_shard_size='2GB')"
    raise ManifestError(explain("model", str(folder), shown, remedy))


HUGGING_FACE = TeacherFormat(
    name="huggingface",
    summary="an image classifier of Hugging Face's transformers",
    when="for a folder with config.json and model.safetensors, as `save_pretrained` writes it",
    needs="`pip install 'fedcpsc[huggingface]'`",
    weights_file="the folder's safetensors, with its config.json in the metadata",
    load=load,
    recognise=_recognise,
    code="none: tensors and settings; the network is transformers' installed code, and no code of a hub's",
    checks="the network's class, every tensor, labels, steps of preparation",
)
