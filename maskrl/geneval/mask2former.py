"""Load Mask2Former through transformers: from mmdet's official checkpoint, or from weights in transformers' layout."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError
from torch import Tensor, nn

from maskrl import files
from maskrl.component import open_path
from maskrl.errors import RecipeError
from maskrl.geneval.coco import CLASSES
from maskrl.geneval.mmdet_checkpoint import convert, read_checkpoint
from maskrl.quiet import quiet
from maskrl.weights import first_line, is_hub_id, unreachable

OFFICIAL = "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_20220504_001756-743b7d99.pth"
OFFICIAL_SHA256 = "743b7d99"  # its first digits: mmdet's names of files end with them
_IRRELEVANT = (
    "criterion.",
    ".swin.layernorm.",
    "relative_position_index",
)  # weights that no detection depends on


@dataclass(frozen=True)
class Origin:
    """Where a network's weights come from: ``sha256`` of the checkpoint, None of a folder in transformers' layout."""

    name: str
    sha256: str | None

    @property
    def official(self) -> bool:
        """Whether it is the checkpoint that GenEval's published numbers were made with."""
        return self.sha256 is not None and self.sha256.startswith(OFFICIAL_SHA256)


def load_network(weights: str) -> tuple[nn.Module, Origin]:
    """Return the network, in ``eval()`` mode and fp32, and where it comes from.

    Args:
        weights: an mmdet 2.x checkpoint of the official architecture; or a folder or hub id in transformers' layout.

    Raises:
        RecipeError: there is no such thing, it does not fit, or a package is missing.
    """
    path = Path(open_path(weights))
    try:
        if path.is_file():
            return _from_mmdet(path), Origin(path.name, files.sha256(path))
        if path.is_dir() or (is_hub_id(weights) and path.suffix != ".pth"):
            return _from_transformers(str(path) if path.is_dir() else weights), Origin(weights, None)
    except ImportError as error:
        raise RecipeError(
            f"the detector 'mask2former' needs a package: pip install 'maskrl[geneval]' ({first_line(error).strip()})"
        ) from error
    raise RecipeError(f"there is no weights file {weights!r}; the official one is called {OFFICIAL!r}")


def official_sizes() -> Any:
    """Return the sizes of the official network, Swin-S with 100 queries, as a ``Mask2FormerConfig``."""
    backbone = transformers.SwinConfig(
        embed_dim=96,
        depths=[2, 2, 18, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return transformers.Mask2FormerConfig(backbone_config=backbone, num_labels=len(CLASSES))


def build_network(converted: Mapping[str, Tensor], sizes: Any) -> nn.Module:
    """Build a network of these sizes from tensors by the names of transformers' published files."""
    # transformers renames modules from version to version, and knows how to read what it published
    return _load(None, "the converted checkpoint", config=sizes, state_dict=dict(converted))


def _from_mmdet(path: Path) -> nn.Module:
    sizes = official_sizes()
    return build_network(convert(read_checkpoint(path), sizes, path), sizes)


def _from_transformers(source: str) -> nn.Module:
    try:
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
        if not isinstance(config, transformers.Mask2FormerConfig):
            raise RecipeError(f"{source!r} is a {config.model_type}, no mask2former")
        if config.num_labels != len(CLASSES):
            raise RecipeError(
                f"{source!r} knows {config.num_labels} classes; GenEval asks for COCO's {len(CLASSES)}"
            )
        return _load(source, repr(source))
    except RecipeError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        if Path(source).is_dir():
            raise RecipeError(f"the detector in {source!r} cannot be read: {first_line(error)}") from error
        raise RecipeError(unreachable(f"the detector {source!r}", error)) from error


def _load(source: str | None, what: str, **settings: Any) -> nn.Module:
    with quiet():
        network, told = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True, **settings
        )
    missing = sorted(key for key in told["missing_keys"] if not any(part in key for part in _IRRELEVANT))
    misshapen = [key if isinstance(key, str) else key[0] for key in told["mismatched_keys"]]  # 4, 5
    for faults, fault in ((missing, "missing"), (misshapen, "of another shape")):
        if faults:
            raise RecipeError(
                f"{what} does not fit Mask2Former: {len(faults)} {fault}, {faults[0]} among them"
            )
    module: nn.Module = network
    return module.float().eval().requires_grad_(False)
