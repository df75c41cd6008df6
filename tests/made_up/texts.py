"""Tiny language models with tokenizers that transformers loads, and a text for them."""

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ["a", "merge", "of", "models", "is", "one", "model", "?", "."]
TEXT = "a merge of models is one model . is a model of models one ? " * 6


def save_tokenizer(folder):
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    own = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    own.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=own, unk_token="?", eos_token="."
    ).save_pretrained(folder)


def llama(seed=0, layers=2):
    """Linear layers stored outputs x inputs, an output head of its own."""
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS), hidden_size=12, intermediate_size=20, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
        tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(seed)
    return transformers.LlamaForCausalLM(config).eval()


def gpt2(seed=0):
    """Weights stored inputs x outputs, the head tied to the embedding."""
    config = transformers.GPT2Config(
        vocab_size=len(WORDS), n_embd=12, n_layer=2, n_head=2, n_positions=64
    )
    torch.manual_seed(seed)
    return transformers.GPT2LMHeadModel(config).eval()


def save(model, folder):
    """Write a model as transformers does, with the tokenizer beside it; return the folder."""
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder
