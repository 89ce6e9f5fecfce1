"""A Qwen2.5-VL of the published class and layout, of random weights or taught to score plain colours."""

import torch
from maskrl_unified_reward.pictures import prepare
from maskrl_unified_reward.question import QUESTION, ask
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.utils import logging

from maskrl.testing import PROMPTS

MARKS = ["<|im_end|>", "<|endoftext|>", "<|im_start|>", "<|vision_start|>", "<|vision_end|>"]
MARKS += ["<|image_pad|>", "<|video_pad|>"]
WORDS = 540  # and the marks
ID = {mark: WORDS + i for i, mark in enumerate(MARKS)}
TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = {
    **{"vocab_size": WORDS + len(MARKS), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096},
    **{"rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}, "tie_word_embeddings": False},
    **{"eos_token_id": ID[MARKS[0]], "bos_token_id": ID[MARKS[1]], "pad_token_id": ID[MARKS[1]]},
}
VISION = {
    **{"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32},
    **{"fullatt_block_indexes": [0]},
}
PLACES = {
    "image_token_id": ID["<|image_pad|>"],
    "video_token_id": ID["<|video_pad|>"],
    "vision_start_token_id": ID["<|vision_start|>"],
    "vision_end_token_id": ID["<|vision_end|>"],
}
ANSWERS = {
    "do_sample": True,
    "temperature": 1e-6,
    "eos_token_id": [ID["<|im_end|>"], ID["<|endoftext|>"]],
    "pad_token_id": ID["<|endoftext|>"],
}
COLORS = {(1.0, 0.0, 0.0): 1.5, (0.0, 1.0, 0.0): 3.0, (0.0, 0.0, 1.0): 5.0}
STEPS, ENOUGH = 150, 0.03


def plain(color):
    """Return a picture of one colour, Float [1, 3, 56, 56]."""
    return torch.tensor(color)[None, :, None, None].repeat(1, 1, 56, 56)


def write(folder, learns=False):
    """Write network and processor; it knows the scores of ``COLORS`` for ``PROMPTS``, or nothing."""
    folder.mkdir(exist_ok=True)
    processor = make_processor(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = Qwen2_5_VLConfig(text_config=TEXT, vision_config=VISION, **PLACES)
        network = Qwen2_5_VLForConditionalGeneration(sizes)
    if learns:
        learn(network, processor)
    network.generation_config.update(**ANSWERS)
    logging.disable_progress_bar()
    network.save_pretrained(folder, max_shard_size="50KB")  # in parts, as it is published
    return folder


def make_processor(folder):
    """Write and return a processor whose words are the question's."""
    core = Tokenizer(BPE())
    core.pre_tokenizer = ByteLevel(add_prefix_space=False)
    core.train_from_iterator(
        [QUESTION, *(prompt.text for prompt in PROMPTS)] * 2,
        BpeTrainer(vocab_size=WORDS, initial_alphabet=ByteLevel.alphabet(), show_progress=False),
    )
    core.model.save(str(folder))  # vocab.json and merges.txt
    tokenizer = Qwen2Tokenizer.from_pretrained(
        folder, additional_special_tokens=MARKS, eos_token=MARKS[0], pad_token=MARKS[1], unk_token=None
    )
    parts = Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor()
    processor = Qwen2_5_VLProcessor(*parts, chat_template=TEMPLATE)
    processor.save_pretrained(folder)
    return processor


def learn(network, processor):
    """Teach it to answer about plain colours."""
    pairs = [(prompt.text, color) for prompt in PROMPTS for color in COLORS]
    questions = [ask(processor, text) for text, _ in pairs]
    answers = [f"Final Score: {COLORS[color]}<|im_end|>" for _, color in pairs]
    pictures = prepare(torch.cat([plain(color) for _, color in pairs]))
    both = [question + answer for question, answer in zip(questions, answers, strict=True)]
    inputs = processor(text=both, images=pictures, padding=True, padding_side="left", return_tensors="pt")
    length = max(len(processor.tokenizer(answer).input_ids) for answer in answers)
    labels = inputs["input_ids"].clone()
    labels[:, :-length] = -100
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(STEPS):
        loss = network(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < ENOUGH:
            break
