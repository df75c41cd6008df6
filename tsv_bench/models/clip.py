"""The paper's backbones: CLIP with OpenAI's weights, built by open_clip (arXiv:2103.00020)."""

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from tsv_bench import hub
from tsv_bench.models.backbone import Backbone
from tsv_bench.models.quick_import import open_clip
from tsv_bench.state_dicts.integrity import hash_weights
from tsv_bench.state_dicts.state_dict import SUFFIXES, StateDict, open_state_dict

log = logging.getLogger(__name__)

# The paper's architectures: messages name the one that fits a file.
KNOWN = ("ViT-B-32-quickgelu", "ViT-B-16-quickgelu", "ViT-L-14-quickgelu")
VISUAL = "visual."
# Entries of OpenAI's and of older state dicts that are no parameters.
LEFTOVERS = {"attn_mask", "input_resolution", "context_length", "vocab_size"}
PROMPTS_AT_ONCE = 256
# Other settings make the text tower not causal, pool it elsewhere, or take it from another library.
TEXT_SETTINGS = {"context_length", "vocab_size", "width", "heads", "layers"}


def load_clip(
    *,
    name: str,
    label: str,
    architecture: str,
    weights: str,
    sha256: str | None = None,
    revision: str | None = None,
    num_bytes: int | None = None,
    licence: str | None = None,
) -> Backbone:
    """Load a CLIP of open_clip. Its text tower is read when prompts are first encoded.

    ``architecture`` is one of open_clip's with QuickGELU. ``weights`` is a repository of the hub
    that tsv-fetch has fetched, or a file or folder with an open_clip state dict. ``sha256`` is the
    image tower's `fingerprint` (null: any). tsv-fetch shows ``num_bytes`` and ``licence``. Raises
    ValueError if the weights do not fit, OSError if they are not here.
    """
    needs = clip_needs(
        name=name, label=label, architecture=architecture, weights=weights, sha256=sha256,
        revision=revision, num_bytes=num_bytes, licence=licence,
    )  # fmt: skip
    clip = build_clip(architecture)
    path = hub.require(needs[0]) if needs else Path(weights).expanduser()
    state = open_clip_file(path)
    check_parameters(clip, state, architecture)

    visual = clip.visual
    visual.load_state_dict(read(state, VISUAL, visual.state_dict()), assign=True)
    visual.eval().requires_grad_(False)
    check_quick_gelu(visual, architecture)
    found = fingerprint(visual.state_dict())
    if sha256 and found != sha256:
        raise ValueError(
            f"the image tower in {state.path} has sha256 {found}, conf/backbone/{name}.yaml "
            f"expects {sha256}. Fetch the weights again; if they are meant to be others, set "
            f"backbone.load.sha256=null."
        )
    log.info(f"{label}: image tower of {state.path}, QuickGELU, sha256 {found}")
    text = TextTower(architecture, state.path)
    return Backbone(
        name=name,
        label=label,
        image_size=visual.image_size[0],
        visual=visual,
        fingerprint=found,
        logit_scale=state["logit_scale"].float().exp().item(),
        encode_text=text.encode,
        release_text=text.release,
        text_fingerprint=lambda: text.fingerprint,
    )


def clip_needs(
    *,
    name: str,
    label: str,
    architecture: str,
    weights: str,
    sha256: str | None = None,
    revision: str | None = None,
    num_bytes: int | None = None,
    licence: str | None = None,
) -> list[hub.Need]:
    """Return what `load_clip` needs from the hub with these arguments; [] for a user's weights."""
    path = Path(weights).expanduser()
    is_repository = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", weights) and path.suffix not in SUFFIXES
    if path.exists() or not is_repository:
        return []
    need = hub.Need(
        what=f"weights of {name}",
        repo=weights,
        kind="model",
        patterns=(open_clip.constants.HF_SAFE_WEIGHTS_NAME,),
        revision=revision,
        num_bytes=num_bytes,
        licence=licence,
    )
    return [need]


@cache
def _tokenizer(architecture: str) -> "open_clip.SimpleTokenizer":
    """Return an architecture's tokenizer, which takes longer to make than to use."""
    return open_clip.get_tokenizer(architecture)


def build_clip(architecture: str) -> "open_clip.CLIP":
    """Build an open_clip model without weights, on torch's meta device.

    Raises ValueError if there is no such architecture, or if it is not of OpenAI's kind.
    """
    if architecture not in open_clip.list_models():
        raise ValueError(
            f"unknown architecture {architecture!r}: open_clip {open_clip.__version__} has none of "
            f"that name. Those of the paper are {', '.join(KNOWN)}."
        )
    settings = open_clip.get_model_config(architecture)
    if (
        # A ResNet has four numbers of layers, a tower of timm none.
        not isinstance(settings["vision_cfg"].get("layers"), int)
        or not TEXT_SETTINGS.issuperset(settings["text_cfg"])
        or not {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}.issuperset(settings)
    ):
        raise ValueError(
            f"architecture {architecture!r} is another kind of network than OpenAI's: a ViT beside "
            f"a causal text transformer. Those of the paper are {', '.join(KNOWN)}."
        )
    with torch.device("meta"):
        return open_clip.CLIP(**settings)


def open_clip_file(path: Path) -> StateDict:
    """Open the state dict at ``path``; in a folder, the file that open_clip would take."""
    for name in (open_clip.constants.HF_SAFE_WEIGHTS_NAME, open_clip.constants.HF_WEIGHTS_NAME):
        if (path / name).exists():
            return open_state_dict(path / name)
    return open_state_dict(path)


def check_parameters(
    clip: nn.Module, state: StateDict, architecture: str, option: str = "weights"
) -> None:
    """Check that ``state`` has the parameters of both towers of ``clip``, and no others.

    ``option`` of backbone.load chooses the weights. Raises ValueError that names the first
    difference, and whose weights they are if that is known.
    """
    expected = {name: tensor.shape for name, tensor in clip.state_dict().items()}
    found = {name: state.shape(name) for name in state if name not in LEFTOVERS}
    lacking = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    differing = [name for name in expected if name in found and found[name] != expected[name]]
    if lacking:
        odd = (
            f"{lacking[0]!r} is not in it ({len(lacking)} such), its first is {next(iter(state))!r}"
        )
    elif unknown:
        odd = f"it holds {unknown[0]!r}, which that has not ({len(unknown)} such)"
    elif differing:
        name = differing[0]
        odd = (
            f"{name!r} is {list(found[name])}, expected {list(expected[name])} "
            f"({len(differing)} such)"
        )
    else:
        return
    whose = next((other for other in KNOWN if shapes(other).items() <= found.items()), None)
    hint = f"These are weights of {whose}: choose that backbone, or" if whose else "Choose"
    raise ValueError(
        f"{state.path} does not fit architecture {architecture!r} of open_clip: {odd}. {hint} "
        f"other weights with backbone.load.{option}=."
    )


def shapes(architecture: str) -> dict[str, torch.Size]:
    """Return the shapes of the image tower's parameters, named as in the whole CLIP."""
    state = build_clip(architecture).state_dict()
    return {name: tensor.shape for name, tensor in state.items() if name.startswith(VISUAL)}


def read(state: StateDict, prefix: str, names: Iterable[str]) -> dict[str, Tensor]:
    """Read these parameters as float32, one after another."""
    return {name: state[prefix + name].float() for name in names}


def check_quick_gelu(tower: nn.Module, architecture: str) -> None:
    """Check that every MLP's activation is open_clip's QuickGELU. Raises ValueError if not."""
    activations = {n: m for n, m in tower.named_modules() if n.endswith(".mlp.gelu")}
    assert activations, "open_clip calls its activations something else now"
    for name, module in activations.items():
        if not isinstance(module, open_clip.transformer.QuickGELU):
            raise ValueError(
                f"architecture {architecture!r} computes {type(module).__name__} at {name}, "
                f"OpenAI's weights need QuickGELU. Since 2.29 open_clip builds the plain one for "
                f"the plain names and only warns; accuracy is then some points low. Choose the "
                f"architecture that ends in -quickgelu: backbone.load.architecture="
                f"{architecture.removesuffix('-quickgelu')}-quickgelu."
            )


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of loaded weights.

    They are float32, so a copy of the same weights in another format has the same hash.
    """
    return hash_weights(tensors, list)


class TextTower:
    """A text tower that reads its weights on the first call and frees them on `release`."""

    def __init__(self, architecture: str, path: Path) -> None:
        self.architecture, self.path = architecture, path
        self._clip: open_clip.CLIP | None = None

    def _load(self) -> "open_clip.CLIP":
        clip = build_clip(self.architecture)
        del clip.visual
        state = open_state_dict(self.path)
        clip.load_state_dict(read(state, "", clip.state_dict()), assign=True)
        check_quick_gelu(clip, self.architecture)
        return clip.eval().requires_grad_(False)

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of its weights, of which only one is in memory at a time."""
        state, digest = open_state_dict(self.path), hashlib.sha256()
        for name in sorted(state):
            if not name.startswith(VISUAL) and name not in LEFTOVERS:
                digest.update(fingerprint({name: state[name].float()}).encode())
        return digest.hexdigest()

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> Tensor:
        """Return the features of prompts [prompts, dim], not normalized."""
        self._clip = self._clip or self._load()
        tokens = _tokenizer(self.architecture)(prompts)
        features = []
        positions = self._clip.positional_embedding
        try:
            for batch in tokens.split(PROMPTS_AT_ONCE):
                # A prompt's feature is that of its last token, which has the highest id. The
                # tower is causal, so the padding after it can be cut: most of 77 positions.
                length = int(batch.argmax(dim=1).max()) + 1
                self._clip.positional_embedding = nn.Parameter(positions[:length], False)
                self._clip.attn_mask = torch.full((length, length), -torch.inf).triu(1)
                features.append(self._clip.encode_text(batch[:, :length]))
        finally:
            self._clip.positional_embedding = positions
        return torch.cat(features)

    def release(self) -> None:
        """Free the weights."""
        self._clip = None
