"""CLIP's text tower at ViT-B/32's size against transformers in PyTorch, with random weights."""

import gzip
import json

import jax.numpy as jnp
import numpy as np
import pytest

from sazs_jax.pretrained.clip_text import load_clip_text
from sazs_jax.text import TextTower

torch = pytest.importorskip("torch", reason="live parity needs PyTorch: make parity")
pytestmark = pytest.mark.parity

TEXTS = ["a photo of a cat", "sofa", "a dining table in a room with far too many chairs, 7 of them!"]
TEMPLATES = ("{}", "a photo of a {}")


@pytest.fixture(scope="module")
def directory(tmp_path_factory, sazs_data):
    """CLIP's own tokenizer beside a tower of ViT-B/32's size."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    from tests.golden.make_clip_text import randomize

    directory = tmp_path_factory.mktemp("clip")
    with gzip.open(sazs_data / "clip_bpe" / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : 49152 - 256 - 2 + 1]
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
    alphabet = sorted(ByteLevel.alphabet(), key=lambda letter: (ord(letter) >= 256, ord(letter)))
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(merge.split()) for merge in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (directory / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}), "utf-8")

    torch.manual_seed(0)
    model = CLIPTextModelWithProjection(CLIPTextConfig())
    randomize(model, scale=0.02)
    model.save_pretrained(directory)
    return directory


def relative_error(value, expected):
    expected = expected.numpy()
    return np.linalg.norm(np.asarray(value) - expected) / np.linalg.norm(expected)


def forward(directory, texts):
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    model = CLIPTextModelWithProjection.from_pretrained(directory).eval()
    inputs = CLIPTokenizer.from_pretrained(directory)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        return inputs, model(**inputs, output_hidden_states=True)


def test_clips_tokenizer_gives_the_published_ids(directory):
    _, tokenizer = load_clip_text(str(directory))
    assert tokenizer("a photo of a cat")["input_ids"] == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_every_depth(directory):
    inputs, expected = forward(directory, TEXTS)
    tower, _ = load_clip_text(str(directory))
    output = tower(jnp.asarray(inputs["input_ids"].numpy()))
    real = inputs["attention_mask"].bool()  # transformers hides padding from padding, too
    pairs = [
        *zip(output.hidden[:12], expected.hidden_states[:12], strict=True),
        (output.tokens, expected.last_hidden_state),
    ]
    errors = [relative_error(value[real.numpy()], expected[real]) for value, expected in pairs]
    errors += [relative_error(output.embedding, expected.text_embeds)]
    print("embedded tokens, after blocks 1 to 11, last norm, embedding:", *(f"{error:.1e}" for error in errors))
    assert max(errors) < 1e-4


def test_a_pytorch_checkpoint_of_all_of_clip(directory, tmp_path):
    """The older file: both towers in one `pytorch_model.bin`, in float16."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextModelWithProjection

    text = CLIPTextModelWithProjection.from_pretrained(directory).half()
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    whole = CLIPModel(CLIPConfig(text_config=text.config.to_dict(), vision_config=vision)).half()
    whole.text_model.load_state_dict(text.text_model.state_dict())
    whole.text_projection.load_state_dict(text.text_projection.state_dict())
    torch.save(whole.state_dict(), tmp_path / "pytorch_model.bin")
    whole.config.save_pretrained(tmp_path)
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((directory / name).read_bytes())

    ids = forward(directory, TEXTS)[0]["input_ids"]
    with torch.no_grad():
        expected = text.float()(ids).text_embeds
    tower, _ = load_clip_text(str(tmp_path))
    assert relative_error(tower(jnp.asarray(ids.numpy())).embedding, expected) < 1e-4


def test_text_tower_over_templates(directory):
    names = ["cat", "dining table", "bicycle"]  # not "aeroplane": the tower is asked for "airplane"
    expected = []
    for name in names:
        units = forward(directory, [template.format(name) for template in TEMPLATES])[1].text_embeds
        expected.append((units / units.norm(dim=1, keepdim=True)).mean(dim=0))
    embeddings = TextTower.load(str(directory), TEMPLATES).embed(names)
    assert relative_error(embeddings, torch.stack(expected)) < 1e-4
