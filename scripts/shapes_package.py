r"""Copy the trained models of the shapes world into the package; frozen ones in half precision.

python scripts/shapes_package.py --tokenizer work/magvit --clip work/clip --showo work/showo \
    --showo-broken work/showo_broken --clip-strict work/clip_strict --image-reward work/image_reward
Those that are not named stay as they are.
"""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = Path(__file__).resolve().parents[1] / "maskrl" / "shapes" / "weights"
NETWORKS = {
    "tokenizer": ("magvit", torch.float16),
    "clip": ("clip", torch.float16),
    "clip-strict": ("clip_strict", torch.float16),
    "image-reward": ("image_reward", torch.float16),
    "showo": ("showo", torch.float32),
    "showo-broken": ("showo_broken", torch.float32),
}
NOT_PACKAGED = ("state.pt", "at_80_percent")


def package(source: Path, name: str, dtype: torch.dtype) -> None:
    """Copy a folder without its training state, its weights as ``dtype``."""
    target = WEIGHTS / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*NOT_PACKAGED))
    for path in target.rglob("tokenizer_config.json"):  # the name that transformers 4 and 5 both know
        path.write_text(path.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))
    for path in target.glob("*.safetensors"):
        tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
        path.chmod(0o644)
        print(f"{path.relative_to(WEIGHTS)}: {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for option in NETWORKS:
        parser.add_argument(f"--{option}", type=Path)
    sources = vars(parser.parse_args())
    for option, (name, dtype) in NETWORKS.items():
        if source := sources[option.replace("-", "_")]:
            package(source, name, dtype)


if __name__ == "__main__":
    main()
