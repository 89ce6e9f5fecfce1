"""Copy the trained models of the shapes world into the package; frozen ones in half precision.

python scripts/shapes_package.py --tokenizer work/magvit --clip work/clip --showo work/showo
"""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = Path(__file__).resolve().parents[1] / "maskrl" / "shapes" / "weights"
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
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--showo", type=Path, required=True)
    args = parser.parse_args()
    package(args.tokenizer, "magvit", torch.float16)
    package(args.clip, "clip", torch.float16)
    package(args.showo, "showo", torch.float32)


if __name__ == "__main__":
    main()
