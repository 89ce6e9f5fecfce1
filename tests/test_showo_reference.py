"""Show-o against numbers that the public implementation computed; docs/showo-fidelity.md says how they were made.

Weights and images are formulas, so that results are all there is to store; ``provenance`` in the file tells the rest.
"""

import json
import math
import zlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from toy import rowwise
from transformers import PhiConfig, PreTrainedTokenizerFast

from maskrl.generators.showo.generator import Showo
from maskrl.generators.showo.magvit import Magvit, MagvitConfig
from maskrl.generators.showo.network import ShowoNetwork, phi_config
from maskrl.generators.showo.prompting import SPECIAL_TOKENS, UniversalPrompting, Vocabulary
from maskrl.grpo.config import SamplingConfig, resolve
from maskrl.grpo.rollout import rollout
from maskrl.grpo.schedule import unmask_counts
from maskrl.types import Prompt, StepIndex, Stream

REFERENCE = json.loads(
    (Path(__file__).with_name("fixtures") / "showo_reference.json").read_text(encoding="utf-8")
)
SIZES = REFERENCE["sizes"]
WORDS = SIZES["words"]
VOCABULARY = Vocabulary(len(WORDS), SIZES["num_codes"])
PUBLISHED = Vocabulary(text_size=50295, num_codes=8192)


def wave(name, *shape):
    """Numbers in [-1, 1) that depend on a name: integers, so that every machine agrees."""
    i = torch.arange(math.prod(shape))
    whole = (7919 * i * i + 104729 * i + zlib.crc32(name.encode())) % 1_000_003
    return (2 * whole.double() / 1_000_003 - 1).reshape(shape)


def weight(name, shape):
    values = wave(name, *shape)
    if len(shape) == 1:
        return (0.2 * values + (1 if name.endswith("weight") else 0)).float()
    if "embed_tokens" in name:
        return values.float()
    gains = {"lm_head": 1.5, "dense": 3, "decoder.conv_out": 0.5}
    gain = next((gain for part, gain in gains.items() if part in name), 1)
    return (gain * math.sqrt(3 / math.prod(shape[1:])) * values).float()


def fill(module):
    module.load_state_dict(
        {name: weight(name, p.shape) for name, p in module.named_parameters()}, strict=False
    )
    return module.eval()


def write_checkpoint(folder, num_tokens):
    """Write a Show-o of formula weights, its language model's config in the published layout, and a tokenizer."""
    showo, magvit = folder / "showo", folder / "magvit"
    for path in (showo / "llm", magvit):
        path.mkdir(parents=True)
    (showo / "llm" / "config.json").write_text(json.dumps(SIZES["phi"]))
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<u>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<e>", eos_token="<e>", unk_token="<u>"
    )
    tokenizer.save_pretrained(showo / "llm")
    sizes = {
        "vocab_size": VOCABULARY.size,
        "llm_vocab_size": len(WORDS),
        "codebook_size": SIZES["num_codes"],
        "num_vq_tokens": num_tokens,
        "llm_model_path": "llm",
        "max_text_length": SIZES["max_text_length"],
    }
    (showo / "config.json").write_text(json.dumps(sizes))
    network = ShowoNetwork(phi_config(PhiConfig(**SIZES["phi"]), VOCABULARY), VOCABULARY)
    save_file(fill(network).state_dict(), showo / "pytorch_model.safetensors")
    thin = MagvitConfig(channels=4, bits=SIZES["bits"], norm_groups=2)
    save_file(Magvit(thin).state_dict(), magvit / "model.safetensors")
    (magvit / "config.json").write_text(json.dumps(thin.model_dump()))
    return showo, magvit


def load(folder, num_tokens):
    showo, magvit = write_checkpoint(folder, num_tokens)
    return Showo(Showo.Config(checkpoint=str(showo), tokenizer=str(magvit)))


@pytest.fixture
def generator(tmp_path):
    return load(tmp_path, 16)


@pytest.fixture(scope="module")
def magvit():
    return fill(Magvit(MagvitConfig(channels=SIZES["magvit_channels"])))


def padded(prompting, text, frame):
    """A whole row as the public code lays it out, padding included."""
    ids = prompting.ids(text)[0].tolist()
    return [prompting.vocabulary.special("[PAD]")] * (prompting.length - len(ids)) + ids + frame


def test_special_tokens_have_the_ids_of_the_public_tokenizer():
    published = REFERENCE["special_ids"]["published"]
    assert len(published) == len(SPECIAL_TOKENS)
    for token, number in published.items():
        assert PUBLISHED.special({"<|pad|>": "[PAD]"}.get(token, token)) == number
    assert PUBLISHED.code_offset == REFERENCE["special_ids"]["num_text_and_special"]


def test_rows_are_the_public_ones(generator):
    """Short, empty, exactly full, cut, already with bos, with an unknown word."""
    layout = REFERENCE["layout"]
    frame = generator._frame(torch.full((1, layout["num_tokens"]), SIZES["num_codes"]))[0].tolist()
    rows = [padded(generator._prompting, text, frame) for text in layout["texts"]]
    assert rows == layout["ids"]


class Numbers:
    """A tokenizer of numbers: each is its own id."""

    bos_token_id = 0
    eos_token_id = 0

    def encode(self, text, add_special_tokens=True):
        assert not add_special_tokens
        return [int(word) for word in text.split()]


@pytest.mark.parametrize("case", REFERENCE["published_layout"], ids=lambda c: f"{len(c['words'])}")
def test_rows_at_the_published_sizes_are_the_public_ones(case):
    prompting = UniversalPrompting(Numbers(), PUBLISHED, max_text_length=128)
    codes = torch.arange(case["num_tokens"]) * 31 % 8192 + PUBLISHED.code_offset
    codes[::3] = PUBLISHED.mask_id
    frame = [PUBLISHED.special("<|soi|>"), *codes.tolist(), PUBLISHED.special("<|eoi|>")]
    assert padded(prompting, " ".join(map(str, case["words"])), frame) == case["ids"]
    assert len(case["ids"]) == {256: 387, 1024: 1155}[case["num_tokens"]]


def depends(outputs, inputs):
    """Which of the [1, L, D] inputs each of the outputs depends on, a string of 0 and 1 for each."""
    rows = []
    for output in outputs:
        grads = torch.autograd.grad(
            output.square().sum(), inputs, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        rows.append("".join("01"[bool(place.any())] for grad in grads for place in grad[0]))
    return rows


@pytest.mark.parametrize("case", REFERENCE["mask"], ids=lambda c: c["text"] or "empty")
def test_who_sees_whom_is_the_public_mask(generator, case):
    """Seen through a single layer of attention: keys of layer 1 for the text, the end of layer 0 for the image."""
    network, prompting = generator.module, generator._prompting
    embedded = []
    network.showo.model.embed_tokens.register_forward_hook(lambda *call: embedded.append(call[-1]))
    text, _ = prompting.ids(case["text"])
    frame = generator._frame(torch.full((1, case["num_tokens"]), SIZES["num_codes"]))
    keys = network.read([text], end=prompting.length).layers[1][0][0]
    of_text = depends(keys.unbind(dim=1), embedded)
    network.showo.model.layers = network.showo.model.layers[:1]
    embedded.clear()
    memory = network.read([text], end=prompting.length)
    hidden = network.forward_image(frame, [1], memory, start=prompting.length)
    of_image = depends(hidden[0], embedded)
    pads = prompting.length - len(text)
    text_rows = ["0" * pads + row + "0" * frame.shape[1] for row in of_text]
    assert text_rows + ["0" * pads + row for row in of_image] == case["rows"][pads:]


@pytest.mark.parametrize("case", REFERENCE["logits"], ids=lambda c: f"guidance {c['guidance']}")
@pytest.mark.filterwarnings("ignore:Show-o reads .* is cut")
def test_logits_are_the_public_ones(generator, case):
    """fp64 agrees to the digits of the file; in fp32, rounding grows with the weights of the two branches."""
    guidance, tokens = case["guidance"], torch.tensor(case["tokens"])
    expected = torch.tensor(case["logits"], dtype=torch.float64)
    step = StepIndex(torch.zeros(len(tokens), dtype=torch.long), 4)
    for dtype, tolerance in ((torch.float32, 1e-5 * (1 + 2 * guidance)), (torch.float64, 1e-6)):
        generator.module.to(dtype)
        condition = generator.encode([Prompt(text) for text in case["texts"]])
        for given in (condition, generator.prefill(condition)):
            found = generator.logits(tokens, given, step, rowwise(guidance, len(tokens)))
            assert (found - expected).abs().max() < tolerance


class Seeded(Stream):
    """A stream whose noise is its seed's alone."""

    def generator(self):
        return torch.Generator().manual_seed(self.seed)


@pytest.mark.parametrize(
    "case",
    REFERENCE["sampling"],
    ids=lambda c: f"N={c['num_tokens']} T={c['num_steps']} w={c['guidance']} tau={c['tau_init']}",
)
def test_sampling_visits_the_public_states(tmp_path, case):
    generator = load(tmp_path, case["num_tokens"])
    streams = [Seeded(case["seed"] + b) for b in range(len(case["texts"]))]
    assert torch.rand(1, generator=streams[0].generator()).item() == case["first"][0], "torch's noise changed"
    trajectory = rollout(
        generator,
        generator.encode([Prompt(text) for text in case["texts"]]),
        streams,
        case["num_steps"],
        resolve(SamplingConfig(tau_init=case["tau_init"]), generator.spec),
        case["guidance"],
    )
    assert trajectory.state.tolist() == case["states"]
    assert trajectory.tokens.tolist() == case["tokens"]


@pytest.mark.parametrize("case", REFERENCE["counts"], ids=lambda c: f"{c['num_steps']}-{c['num_tokens']}")
def test_as_many_are_revealed_as_by_the_public_sampler(case):
    assert unmask_counts(case["num_tokens"], case["num_steps"], "cosine") == case["revealed"]


def test_codes_of_images_are_the_public_ones(magvit):
    reference = REFERENCE["magvit"]
    images = F.avg_pool2d((0.5 + 0.5 * wave("images", 2, 3, 64, 48)).float(), 3, stride=1, padding=1)
    with torch.no_grad():
        features = magvit.encoder(images * 2 - 1)
        assert (features - torch.tensor(reference["features"])).abs().max() < 1e-5
        assert magvit.encode(images).tolist() == reference["codes"]


def test_bits_of_codes_are_the_public_ones(magvit):
    single = torch.where(torch.eye(13, dtype=torch.bool), 1.0, -1.0)[:, :, None, None]
    assert magvit.quantize.codes(single).flatten().tolist() == REFERENCE["magvit"]["single_bit_codes"]


def test_pixels_of_codes_are_the_public_ones(magvit):
    reference = REFERENCE["magvit"]
    with torch.no_grad():
        pixels = magvit.decode(torch.tensor(reference["decoded_codes"]), reference["grid"])
    assert pixels.shape == (1, 3, 32, 48)
    assert (pixels.flatten() - torch.tensor(reference["pixels"])).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["showo", "magvit"])
def test_names_and_shapes_of_the_weights_are_the_public_ones(name):
    with torch.device("meta"):
        module = (
            Magvit(MagvitConfig())
            if name == "magvit"
            else ShowoNetwork(phi_config(PhiConfig(**SIZES["published_phi"]), PUBLISHED), PUBLISHED)
        )
    found = {key: list(value.shape) for key, value in module.state_dict().items()}
    assert found == REFERENCE["keys"][name]
    assert sum(p.numel() for p in module.parameters()) == REFERENCE["num_parameters"][name]


def test_what_the_clip_variants_add_is_left_aside(tmp_path):
    showo, magvit = write_checkpoint(tmp_path, 16)
    path = showo / "pytorch_model.safetensors"
    weights = load_file(path)
    added = {key: torch.zeros(1) for key in REFERENCE["keys"]["added_by_clip_vit"]}
    assert len(added) == 4
    save_file({**weights, **added}, path)
    with pytest.warns(UserWarning, match="is ignored"):
        generator = Showo(Showo.Config(checkpoint=str(showo), tokenizer=str(magvit)))
    assert generator.module.state_dict().keys() == weights.keys()
