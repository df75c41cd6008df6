"""Tiny models, LoRA adapters that peft writes for them, and what peft merges them to."""

import copy
import warnings

import open_clip
import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40}


def llama():
    config = transformers.LlamaConfig(
        hidden_size=12, intermediate_size=20, tie_word_embeddings=False, **SMALL
    )
    return transformers.LlamaForCausalLM(config)


def qwen2():  # biases of q, k and v, and a tied head
    config = transformers.Qwen2Config(
        hidden_size=12, intermediate_size=20, num_key_value_heads=1, tie_word_embeddings=True,
        **SMALL,
    )  # fmt: skip
    return transformers.Qwen2ForCausalLM(config)


def gpt2():  # matrices stored as inputs by outputs
    config = transformers.GPT2Config(n_embd=12, n_layer=2, n_head=2, vocab_size=40, n_positions=9)
    return transformers.GPT2LMHeadModel(config)


def t5():
    config = transformers.T5Config(
        d_model=12, d_kv=6, d_ff=20, num_layers=2, num_heads=2, vocab_size=40
    )
    return transformers.T5ForConditionalGeneration(config)


def clip():
    vision = {"layers": 2, "width": 12, "head_width": 6, "patch_size": 4, "image_size": 8}
    text = {"layers": 1, "width": 12, "heads": 2, "context_length": 5, "vocab_size": 40}
    return open_clip.CLIP(8, open_clip.CLIPVisionCfg(**vision), open_clip.CLIPTextCfg(**text))


def set_random(model):
    """Give every parameter random values: a B begins at zero, a bias or a norm at one value."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))


def save_base(model, folder):
    """The folder of a base, as its library saves it."""
    if isinstance(model, transformers.PreTrainedModel):
        model.save_pretrained(folder)
    else:
        folder.mkdir()
        state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        save_file(state, folder / "model.safetensors")
    return folder


def adapter(model, folder, *, train=None, bin=False, **settings):
    """Save an adapter of the model with random factors; return what peft merges it to.

    ``train``: changes the adapted model further, before it is saved.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(**settings))
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.3 * torch.randn(parameter.shape))
        adapted.save_pretrained(folder, safe_serialization=not bin)
        return adapted.merge_and_unload()


def saved(model, folder):
    """The state dict of a model as its library saves it."""
    save_base(model, folder)
    return load_file(folder / "model.safetensors")
