"""Show-o's parts against published facts, at tiny random sizes or without memory (the meta device)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils._python_dispatch import TorchDispatchMode
from toy import rowwise
from transformers import PhiConfig, PreTrainedTokenizerFast

from maskrl.errors import RecipeError
from maskrl.generators.showo.generator import Showo
from maskrl.generators.showo.magvit import Magvit, MagvitConfig
from maskrl.generators.showo.network import ShowoNetwork, phi_config
from maskrl.generators.showo.prompting import SPECIAL_TOKENS, UniversalPrompting, Vocabulary
from maskrl.types import Prompt, StepIndex

PUBLISHED = Vocabulary(text_size=50295, num_codes=8192)
TINY = Vocabulary(text_size=6, num_codes=8)
TINY_MAGVIT = MagvitConfig(
    channels=4,
    encoder_multipliers=(1, 2),
    encoder_blocks=(0, 1),
    decoder_multipliers=(1, 2),
    decoder_blocks=(0, 1),
    bits=3,
    norm_groups=2,
)
TINY_PHI = PhiConfig(
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=64,
)


class Words:
    """A tokenizer of single letters, a to d are 2 to 5."""

    bos_token_id = 0
    eos_token_id = 0

    def encode(self, text, add_special_tokens=True):
        assert not add_special_tokens
        return [2 + "abcd".index(letter) for letter in text]


def write_checkpoint(folder: Path) -> tuple[Path, Path]:
    """Write a random Show-o and a random tokenizer in the published layout."""
    torch.manual_seed(0)
    showo, magvit = folder / "showo", folder / "magvit"
    for path in (showo, magvit):
        path.mkdir()
    network = ShowoNetwork(phi_config(TINY_PHI, TINY), TINY)
    save_file(network.state_dict(), showo / "pytorch_model.safetensors")
    sizes = {"vocab_size": TINY.size, "llm_vocab_size": 6, "codebook_size": 8, "num_vq_tokens": 9}
    (showo / "config.json").write_text(json.dumps({**sizes, "llm_model_path": "llm", "max_text_length": 6}))
    TINY_PHI.save_pretrained(showo / "llm")
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(("<e>", "<u>", *"abcd"))}, unk_token="<u>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<e>", eos_token="<e>", unk_token="<u>"
    )
    tokenizer.save_pretrained(showo / "llm")
    save_file(Magvit(TINY_MAGVIT).state_dict(), magvit / "model.safetensors")
    (magvit / "config.json").write_text(json.dumps(TINY_MAGVIT.model_dump()))
    return showo, magvit


@pytest.fixture
def folders(tmp_path):
    return write_checkpoint(tmp_path)


@pytest.fixture
def generator(folders):
    return Showo(Showo.Config(checkpoint=str(folders[0]), tokenizer=str(folders[1])))


def test_ids_are_the_published_ones():
    assert [PUBLISHED.special(token) for token in SPECIAL_TOKENS] == list(range(50295, 50305))
    assert (PUBLISHED.code_offset, PUBLISHED.mask_id, PUBLISHED.size) == (50305, 58497, 58498)


def test_parameters_are_the_published_ones():
    with torch.device("meta"):
        phi = PhiConfig(
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=24,
            num_attention_heads=32,
            partial_rotary_factor=0.5,
        )
        showo, magvit = ShowoNetwork(phi_config(phi, PUBLISHED), PUBLISHED), Magvit(MagvitConfig())
    assert sum(p.numel() for p in showo.parameters()) / 1e6 == pytest.approx(1448.18, abs=0.005)
    assert sum(p.numel() for p in magvit.parameters()) / 1e6 == pytest.approx(95.39, abs=0.005)
    assert len(magvit.state_dict()) == 382


def test_text_is_cut_on_the_right_and_ends_where_the_image_begins():
    prompting = UniversalPrompting(Words(), TINY, max_text_length=5)
    t2i = TINY.special("<|t2i|>")
    assert [prompting.ids(text)[0].tolist() for text in ("ab", "", "abcd")] == [
        [t2i, 0, 2, 3, 0],
        [t2i, 0, 0],
        [t2i, 0, 2, 3, 4, 0],
    ]
    assert [prompting.ids(text)[1] for text in ("abc", "abcd")] == [False, True]
    assert prompting.length == 6


@pytest.mark.parametrize(("num_tokens", "length"), [(256, 387), (1024, 1155)])
def test_a_padded_row_would_have_the_published_length(num_tokens, length):
    assert UniversalPrompting(Words(), PUBLISHED, max_text_length=128).length + num_tokens + 2 == length


def padded_logits(generator, texts, tokens):
    """Compute what the published code does: whole rows, padded on the left, one mask, by transformers' own Phi."""
    network, prompting = generator.module, generator._prompting
    special, num_tokens = TINY.special, tokens.shape[1]
    rows, lengths = [], []
    for text, image in zip(texts, tokens.tolist(), strict=True):
        ids = prompting.ids(text)[0].tolist()
        lengths.append(len(ids))
        codes = [code + TINY.code_offset for code in image]
        pads = [special("[PAD]")] * (prompting.length - len(ids))
        rows.append([*pads, *ids, special("<|soi|>"), *codes, special("<|eoi|>")])
    length = len(rows[0])
    allowed = torch.zeros(len(rows), length, length, dtype=torch.bool)
    for b, text_length in enumerate(lengths):
        pads = prompting.length - text_length
        for i in range(length):
            last = (
                length if i >= prompting.length else i + 1
            )  # the image sees all of itself, text what precedes it
            allowed[b, i, (0 if i < pads else pads) : last] = True
    mask = torch.zeros(allowed.shape, dtype=network.head.weight.dtype).masked_fill(~allowed, -1e9)[:, None]
    hidden = network.showo.model(input_ids=torch.tensor(rows), attention_mask=mask).last_hidden_state
    return network.head(hidden[:, -num_tokens - 1 : -1])[..., TINY.code_offset : TINY.mask_id]


TEXTS = ("a b", "c", "a b", "", "d c b a")


def test_reading_a_text_once_changes_nothing(generator):
    """No padding, no mask, one reading a text, keys and values shared: the same logits and the same gradient."""
    generator.module.double()
    tokens = torch.randint(0, 9, (5, 9), generator=torch.Generator().manual_seed(0))
    condition = generator.encode([Prompt(text) for text in TEXTS])
    step = StepIndex(torch.zeros(5, dtype=torch.long), 4)
    weight = torch.randn(5, 9, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    results = {}
    for name, logits in (
        ("ours", lambda: generator.logits(tokens, condition, step, rowwise(0.0, len(tokens)))),
        ("padded", lambda: padded_logits(generator, TEXTS, tokens)),
    ):
        generator.module.zero_grad()
        found = logits()
        (found * weight).sum().backward()
        grads = {n: p.grad.clone() for n, p in generator.module.named_parameters() if p.grad is not None}
        results[name] = (found.detach(), grads)
    assert torch.allclose(results["ours"][0], results["padded"][0], atol=1e-12)
    assert results["ours"][1].keys() == results["padded"][1].keys()
    for name, gradient in results["padded"][1].items():
        assert torch.allclose(results["ours"][1][name], gradient, atol=1e-11), name


def test_guided_logits_are_those_of_both_padded_branches(generator):
    generator.module.double()
    tokens = torch.randint(0, 9, (5, 9), generator=torch.Generator().manual_seed(0))
    condition = generator.prefill(generator.encode([Prompt(text) for text in TEXTS]))
    guided = generator.logits(
        tokens, condition, StepIndex(torch.zeros(5, dtype=torch.long), 4), rowwise(3.0, 5)
    )
    conditional, empty = padded_logits(generator, TEXTS, tokens), padded_logits(generator, [""] * 5, tokens)
    assert torch.allclose(guided, 4 * conditional - 3 * empty, atol=1e-11)


def test_a_prefilled_condition_is_the_same_and_is_read_once(generator):
    texts = [Prompt(text) for text in ("a b", "c")]
    condition = generator.encode(texts)
    rows = torch.tensor([1, 0, 0, 1, 1])
    tokens = torch.full((5, 9), generator.spec.mask_id)
    step = StepIndex(torch.zeros(5, dtype=torch.long), 4)
    prefilled = generator.prefill(condition)
    assert generator.prefill(prefilled) is prefilled
    assert not any(part.requires_grad for layer in prefilled.memory.layers for part in layer)
    reads = []
    read = generator.module.read
    generator.module.read = lambda texts, end: reads.append([len(text) for text in texts]) or read(texts, end)
    for guidance, read_lengths in ((0.0, [5, 4]), (1.0, [5, 4, 3])):
        reads.clear()
        again = generator.logits(tokens, prefilled.select(rows), step, rowwise(guidance, 5))
        assert reads == []
        plain = generator.logits(tokens, condition.select(rows), step, rowwise(guidance, 5))
        assert reads == [read_lengths]  # each text once, however many rows have it
        assert torch.allclose(again, plain, atol=1e-6)


def test_the_network_under_autocast_attends_in_bf16(generator):
    tokens = torch.full((2, 9), generator.spec.mask_id)
    condition = generator.encode([Prompt("a"), Prompt("b c")])
    step = StepIndex(torch.zeros(2, dtype=torch.long), 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prefilled = generator.prefill(condition)
        halved = generator.logits(tokens, prefilled, step, rowwise(0.0, 2))
    assert {part.dtype for layer in prefilled.memory.layers for part in layer} == {torch.bfloat16}
    assert halved.dtype == torch.bfloat16
    assert torch.allclose(
        halved.float(), generator.logits(tokens, condition, step, rowwise(0.0, len(tokens))), atol=0.1
    )


def test_the_head_is_asked_for_codes_only(generator):
    """Released code computes every row of the head and cuts the codes out."""
    hidden = torch.randn(5, 16)
    everything = generator.module.showo.lm_head(hidden)
    codes = generator.module.code_logits(hidden)
    assert codes.shape == (5, 8)
    assert torch.allclose(codes, everything[:, TINY.code_offset : TINY.mask_id], atol=1e-6)
    calls = []
    generator.module.showo.lm_head.register_forward_hook(lambda *_: calls.append(1))
    prompts = [Prompt("a"), Prompt("b c")]
    tokens = torch.full((2, 9), generator.spec.mask_id)
    generator.logits(tokens, generator.encode(prompts), StepIndex(torch.zeros(2), 1), rowwise(0.0, 2))
    assert not calls


def test_wanted_positions_are_rows_of_the_whole(generator):
    condition = generator.encode([Prompt("a"), Prompt("b c")])
    tokens = torch.randint(0, 9, (2, 9), generator=torch.Generator().manual_seed(0))
    wanted = tokens == generator.spec.mask_id
    wanted[0, 3] = True
    step = StepIndex(torch.zeros(2, dtype=torch.long), 4)
    for guidance in (0.0, 1.5):
        whole = generator.logits(tokens, condition, step, rowwise(guidance, 2))
        assert whole.shape == (2, 9, 8)
        packed = generator.logits(tokens, condition, step, rowwise(guidance, 2), positions=wanted)
        assert torch.allclose(packed, whole[wanted], atol=1e-5)


def test_the_last_layer_goes_on_after_attention_at_wanted_positions_only(generator):
    condition = generator.encode([Prompt("a"), Prompt("b c")])
    tokens, wanted = torch.full((2, 9), generator.spec.mask_id), torch.zeros(2, 9, dtype=torch.bool)
    wanted[0, 3] = wanted[1, 5:8] = True
    seen = []
    for layer in generator.module.showo.model.layers:
        for part in (layer.self_attn.dense, layer.mlp):
            part.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[:-1].numel()))
    step = StepIndex(torch.zeros(2, dtype=torch.long), 4)
    prefilled = generator.prefill(condition)
    seen.clear()
    generator.logits(tokens, prefilled, step, rowwise(0.0, 2), positions=wanted)
    assert seen == [2 * 11, 4, 4]  # the first layer's MLP ran when the table was made


def test_texts_of_one_length_are_attended_to_together_and_the_rows_come_back_in_order(generator):
    texts = ("a", "b c", "d", "c b", "")
    condition, rows = generator.encode([Prompt(text) for text in texts]), torch.tensor([2, 1, 0, 3, 4, 2, 0])
    tokens = torch.randint(0, 9, (7, 9), generator=torch.Generator().manual_seed(0))
    step = StepIndex(torch.zeros(7, dtype=torch.long), 4)
    prefilled, chosen = generator.prefill(condition), []
    with torch.no_grad(), Attentions() as attentions:
        together = generator.logits(tokens, prefilled.select(rows), step, rowwise(0.0, 7))
    assert attentions.rows == [2, 4, 1] * 2  # b c and c b; a and d; nothing: in each of two layers
    for row in range(7):
        alone = prefilled.select(rows[row : row + 1])
        chosen.append(generator.logits(tokens[row : row + 1], alone, step, rowwise(0.0, 1)))
    assert torch.allclose(together, torch.cat(chosen), atol=1e-6)


class Attentions(TorchDispatchMode):
    """How many rows each call of attention has."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "scaled_dot_product" in str(func):
            self.rows.append(len(args[0]))
        return func(*args, **(kwargs or {}))


def test_guidance_moves_away_from_the_empty_text(generator):
    tokens = torch.full((1, 9), generator.spec.mask_id)
    step = StepIndex(torch.zeros(1, dtype=torch.long), 4)
    conditional, empty = (
        generator.logits(tokens, generator.encode([Prompt(text)]), step, rowwise(0.0)) for text in ("a b", "")
    )
    guided = generator.logits(tokens, generator.encode([Prompt("a b")]), step, rowwise(2.0))
    assert torch.allclose(guided, 3 * conditional - 2 * empty, atol=1e-5)


def test_a_condition_is_indexed_by_rows(generator):
    condition = generator.encode([Prompt("a"), Prompt("b")])
    assert condition.select(torch.tensor([1, 1, 0])).rows.tolist() == [1, 1, 0]
    assert condition.select(torch.tensor([1, 1, 0])).select(torch.tensor([2])).rows.tolist() == [0]


def test_bits_are_big_endian_and_images_come_back_in_range(generator):
    quantize = generator.magvit.quantize
    z = torch.tensor([1.0, -1.0, 1.0]).reshape(1, 3, 1, 1)
    assert quantize.codes(z).tolist() == [[5]]
    assert torch.equal(quantize.features(torch.tensor([[5]]), (1, 1)), z)
    images = generator.decode(torch.arange(9)[None] % 8, generator.encode([Prompt("a")]))
    assert images.shape == (1, 3, 6, 6)
    assert images.min() >= 0
    assert images.max() <= 1


def test_what_is_saved_loads_again(generator, folders, tmp_path):
    with torch.no_grad():
        generator.module.head.weight.add_(1)
    generator.save(str(tmp_path / "saved"))
    again = Showo(Showo.Config(checkpoint=str(tmp_path / "saved"), tokenizer=str(folders[1])))
    for key, value in generator.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[key], value)
    assert again.spec == generator.spec
    original = load_file(folders[0] / "pytorch_model.safetensors").keys()
    assert load_file(tmp_path / "saved" / "pytorch_model.safetensors").keys() == original


def test_a_long_prompt_is_cut_with_a_warning(generator):
    with pytest.warns(
        UserWarning,
        match=r"Show-o reads 6 tokens .* is cut, .*: 'a b c d a b c d'",
    ):
        generator.encode([Prompt("a b c d a b c d")])


def load(folders, name, change):
    change(folders[0] if name == "showo" else folders[1])
    return Showo(Showo.Config(checkpoint=str(folders[0]), tokenizer=str(folders[1])))


def drop_a_key(folder):
    tensors = load_file(folder / "pytorch_model.safetensors")
    tensors.pop("showo.lm_head.bias")
    tensors["stranger"] = torch.zeros(1)
    tensors["showo.lm_head.weight"] = torch.zeros(2, 2)
    save_file(tensors, folder / "pytorch_model.safetensors")


def truncate(folder):
    path = folder / "pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "pytorch_model.safetensors").unlink(), "holds no weights"),
        (lambda folder: (folder / "config.json").unlink(), "config.json' is missing"),
        (lambda folder: (folder / "config.json").write_text("{}"), "is no Show-o config: vocab_size"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (truncate, "cannot be read .*; fetch it again"),
        (drop_a_key, "1 missing .*lm_head.bias.*1 unknown .*stranger.*1 of another shape"),
    ],
)
def test_a_damaged_checkpoint_is_one_clear_line(folders, change, message):
    with pytest.raises(RecipeError, match=message) as error:
        load(folders, "showo", change)
    assert "\n" not in str(error.value)


def test_a_tokenizer_of_another_size_is_named(folders):
    other = MagvitConfig(**{**TINY_MAGVIT.model_dump(), "bits": 4})
    save_file(Magvit(other).state_dict(), folders[1] / "model.safetensors")
    (folders[1] / "config.json").write_text(json.dumps(other.model_dump()))
    with pytest.raises(RecipeError, match=r"8 codes; the tokenizer .* has 16 codes"):
        Showo(Showo.Config(checkpoint=str(folders[0]), tokenizer=str(folders[1])))


def test_a_missing_folder_says_what_to_give():
    with pytest.raises(RecipeError, match="is no folder and no hub id"):
        Showo(Showo.Config(checkpoint="./nowhere"))


def with_weights(folders, path):
    config = Showo.Config(checkpoint=str(folders[0]), tokenizer=str(folders[1]), weights=str(path))
    return Showo(config)


@pytest.mark.parametrize("name", ["tuned.pth", "tuned.safetensors"])
def test_a_plain_state_dict_takes_the_place_of_the_checkpoints_weights(generator, folders, tmp_path, name):
    """Mask-GRPO published its result as such a file; a parallel wrapper leaves ``module.`` before every key."""
    tuned = {key: tensor + 1 for key, tensor in generator.module.state_dict().items()}
    if name.endswith(".pth"):
        torch.save({f"module.{key}": tensor for key, tensor in tuned.items()}, tmp_path / name)
    else:
        save_file(tuned, tmp_path / name)
    loaded = with_weights(folders, tmp_path / name)
    assert all(torch.equal(loaded.module.state_dict()[key], tensor) for key, tensor in tuned.items())


class Dangerous:
    """Unpickling it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_that_wants_to_run_code_is_not_opened(folders, tmp_path):
    torch.save({"showo.lm_head.bias": Dangerous(tmp_path / "executed")}, tmp_path / "evil.pth")
    with pytest.raises(RecipeError, match="holds more than tensors and was not opened: it could run code"):
        with_weights(folders, tmp_path / "evil.pth")
    assert not (tmp_path / "executed").exists()


def test_a_weights_file_that_does_not_do_is_one_clear_line(folders, tmp_path):
    torch.save({"epoch": 3, "weights": torch.zeros(1)}, tmp_path / "run.pth")
    (tmp_path / "short.pth").write_bytes(b"PK")
    other = ShowoNetwork(phi_config(PhiConfig(**{**TINY_PHI.to_dict(), "hidden_size": 8}), TINY), TINY)
    torch.save(other.state_dict(), tmp_path / "small.pth")
    for name, message in (
        ("absent.pth", "there is no weights file"),
        ("run.pth", "no plain state dict"),
        ("short.pth", "fetch it again|not opened"),
        ("small.pth", r"of another shape \(showo.model.embed_tokens.weight \(25, 8\) for \(25, 16\)"),
    ):
        with pytest.raises(RecipeError, match=message) as error:
            with_weights(folders, tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_hub_out_of_reach_names_the_id_and_what_to_do(folders):
    with pytest.raises(RecipeError, match=r"checkpoint 'showlab/show-o' .* point to the folder"):
        Showo(Showo.Config(checkpoint="showlab/show-o"))
    config = json.loads((folders[0] / "config.json").read_text())
    (folders[0] / "config.json").write_text(json.dumps({**config, "llm_model_path": "microsoft/phi-1_5"}))
    with pytest.raises(RecipeError, match=r"'microsoft/phi-1_5' .* with generator.language_model"):
        Showo(Showo.Config(checkpoint=str(folders[0]), tokenizer=str(folders[1])))
    llm = str(folders[0] / "llm")
    Showo(Showo.Config(checkpoint=str(folders[0]), tokenizer=str(folders[1]), language_model=llm))


def test_loading_leaves_nothing_on_the_meta_device_and_keeps_the_angles(generator):
    network = generator.module
    assert not any(
        t.is_meta for t in (*network.parameters(), *network.buffers(), *generator.magvit.buffers())
    )
    fresh = ShowoNetwork(network.showo.config, TINY)
    assert torch.equal(network.showo.model.rotary_emb.inv_freq, fresh.showo.model.rotary_emb.inv_freq)
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    ("part", "file", "change"),
    [
        (1, "config.json", {"channels": "many"}),
        (1, "config.json", {"channels": -1}),
        (1, "config.json", {"encoder_blocks": []}),
        (1, "config.json", {"channels": 10**12}),
        (0, "config.json", {"sampler": {"num_steps": "x"}}),
        (0, "config.json", {"sampler": {"steps": 3}}),
        (0, "llm/config.json", {"hidden_size": 0}),
        (0, "llm/config.json", {"hidden_size": None}),
        (0, "llm/config.json", {"hidden_act": "x"}),
        (0, "llm/config.json", {"model_type": "bert"}),
    ],
)
def test_settings_that_describe_no_network_are_one_line(folders, part, file, change):
    path = folders[part] / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    settings = Showo.Config(checkpoint=str(folders[0]), tokenizer=str(folders[1]))
    for build in (Showo, lambda config: Showo.cost(config, text_tokens=4)):
        with pytest.raises(
            RecipeError, match=f"{folders[part]}.*(describes nothing|cannot be read)"
        ) as refused:
            build(settings)
        assert "\n" not in str(refused.value)
