"""Faults planted into the packages that `maskrl plugins new` writes, one a contract: `plugins check` names each."""

import re
import shutil

import pytest

from maskrl.templates import TEMPLATES, write_package

FAULTS = {
    "reward": [
        ("images.mean(dim=(1, 2, 3))", "images.mean(dim=(1, 2, 3)) - images.mean()", "the rest of its batch"),
        ("images.mean(dim=(1, 2, 3))", "images.mean() / 2", "score"),
        ("-distance_B", "-distance_B / 0", "not finite"),
        ("return -distance_B", "return -distance_B * len(prompts)", "the rest of its batch"),
        ("images.mean(", "images.mul_(0.5).mean(", "changed the images"),
        ("(brightness_B - self.config.target)", "(brightness_B * 0)", "the same whatever the image"),
        ("-distance_B", "-distance_B + images.new_empty(1).uniform_()", "global random numbers"),
    ],
    "generator": [
        (
            "guided(logits, null, guidance)",
            "guided(logits, logits, guidance)",
            "subtracts depends on the text",
        ),
        ("if guidance.any():", "if guidance.all():", "one weight for each row"),
        (
            "logits: Tensor = self.module(tokens",
            "logits = self.module(tokens.clamp(max=0)",
            "codes that are known",
        ),
        ("return logits if", "return logits.half() if", "float16"),
        ("else logits[positions]", "else logits[positions].detach()", "no gradient reaches module"),
        ("return logits if", "return logits + torch.rand(1) if", "global random numbers"),
        ("Network().eval()", "Network()", r"in train\(\)"),
        ("else logits[positions]", "else logits.flip(0)[positions]", "differ from the full ones"),
        ("here_BND.mean(dim=1, keepdim=True)", "here_BND.mean(dim=(0, 1), keepdim=True)", "the other rows"),
        ("/ 255\n", "/ 127\n", "pixels in"),
        ("for w in prompt.text.split()", "for w in prompt.text.split()[:1]", "do not depend on the text"),
        ("Words(self.numbers[rows])", "Words(self.numbers[:1].expand(len(rows), -1))", "'select' picked"),
        ("as_state_dict(read_file(path), path)", "self.module.state_dict()", "when loaded"),
    ],
    "transition": [
        ("weight_M * logp_M)", "weight_M * logp_M).half()", "float16"),
        ("weight_M * logp_M)", "weight_M * logp_M).sum()", "log_prob returned|log_prob"),
        ("weight_M * logp_M)", "weight_M * (logp_M - logp_M.mean()))", "log_prob|above 1"),
        ("weight_M * logp_M)", "weight_M * logp_M.detach())", "cut off"),
        ("log_softmax(logits)", "logits.log_softmax(-1)", "not computed in fp32|returned bfloat16"),
        ("log_softmax(logits)", "logits.float() - 50", "changes no probability|returned float32"),
        (
            "transition.pack(transition.proposals))",
            "transition.pack(transition.proposals * 0))",
            "revealed|proposed",
        ),
    ],
    "filter": [
        ('return {"seen": self._seen, "kept": self._kept}', "return {}", "raised KeyError"),
        ('state["seen"], state["kept"]', 'state["kept"], state["seen"]', "another state_dict"),
        ("gap_P >= self.config.gap", "gap_P", "keep returned float32"),
        ("gap_P >= self.config.gap", "gap_P >= gap_P.clone().uniform_()", "global random numbers"),
        ("rewards.amax(dim=1) - rewards.amin(dim=1)", "rewards.mul_(2).amax(dim=1)", "changed the rewards"),
    ],
    "reducer": [
        ("1 / len(steps_k)", "1.0", "weights sum to"),
        ("torch.arange(first,", "1 + torch.arange(first,", "outside"),
        (", generator=stream.generator()", "", "global random numbers"),
        ("return num_steps", "return num_steps + 1", "rollout_steps"),
    ],
    "evaluation": [
        ("for pair in zip(images,", "for pair in zip(images[:1] * len(images),", "the rest of its batch"),
        ('"strength": strength}', '"strength": strength / 0.0}', "raised ZeroDivisionError"),
        ('"strength": strength}', '"strength": float("nan")}', "JSON cannot hold"),
        ("(image - image.mean(dim=0))", "image.mul_(0.5)", "changed the images"),
        ("others: list[float] = excess_3", "others = excess_3.uniform_()", "global random numbers"),
        ('bool(row["right"])', '"yes"', "is_right returned"),
    ],
    "detector": [
        ("(float(left), float(top)", "(float(left) - 9, float(top)", "a box outside the image"),
        ("apart[nearest]), mask)", "apart[nearest]), mask.T)", "a mask that is no Bool"),
        ("max(0.0, 1 - 2 * apart[nearest])", "1 - 2 * apart[nearest] - 1", "no Detection with a score"),
        (
            "return nearest, Detection",
            "return nearest.upper(), Detection",
            "which is not in 'classes'|finds no square",
        ),
        ("self.colors[int(np.argmin(apart))]", "class_name", "which is not in 'colors'"),
        ("* image.float()", "* image.mul_(0.5).float()", "changed the image|finds no square"),
        ('"GenEval-my_detector"', '"GenEval"', "the official detector's alone"),
        ("tuple(COLORS)", "()", "it has no 'colors'"),
        ("NEAR = 42", "NEAR = 0", "finds no square"),
    ],
    "prompts": [
        ("if line.strip()]", "]", "without a text"),
        ("return [Prompt(line.strip())", "return [line.strip()", "which is no Prompt"),
        (".splitlines()", ".splitlines()[:0]", "holds no prompts"),
    ],
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    parent = tmp_path_factory.mktemp("written")
    return {
        kind: write_package(kind, f"my-{kind}", parent / kind)[1] / f"src/maskrl_my_{kind}"
        for kind in TEMPLATES
    }


CASES = [(kind, *fault) for kind, faults in FAULTS.items() for fault in faults]


@pytest.mark.parametrize(("kind", "line", "fault", "said"), CASES)
def test_a_fault_in_a_written_package_is_named(cli, written, tmp_path, kind, line, fault, said):
    package = shutil.copytree(written[kind], tmp_path / "faulty")
    module = package / "__init__.py"
    text = module.read_text()
    assert text.count(line) == 1
    module.write_text(text.replace(line, fault))
    if kind == "prompts":
        (package / "prompts.txt").write_text("a star\n\na ring\n")
    name = f"My{kind.capitalize()}"
    result = cli("plugins", "check", f"{module}:{name}")
    assert result.code == 3, result.out
    assert len(result.out.splitlines()) == 1
    assert result.out.startswith("broken")
    assert re.search(said, result.out), result.out
