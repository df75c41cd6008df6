"""What the yaml of a backbone must say, checked before anything is built."""

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from tsv_bench.cli.config.search_path import options

REQUIRED = ("name", "label", "load")
ASKED = ("name", "load.architecture", "load.pretrained")  # by conf/backbone/open_clip.yaml
EXAMPLE = (
    "backbone=open_clip backbone.name=siglip backbone.load.architecture=ViT-B-16-SigLIP "
    "backbone.load.pretrained=webli"
)


def check_backbone(config: DictConfig) -> None:
    """Raise ValueError unless the backbone is named, and its yaml says what loads it."""
    node = config.backbone
    if missing := [key for key in ASKED if OmegaConf.is_missing(*_place(node, key))]:
        raise ValueError(f"backbone.{missing[0]}= is missing. As in: {EXAMPLE}")
    name = node.get("name", "your own")
    if missing := [key for key in REQUIRED if key not in node]:
        raise ValueError(f"the yaml of backbone {name!r} has no {missing[0]}. {_begin('it')}")
    if "_target_" not in node.load:
        raise ValueError(
            f"the yaml of backbone {name!r} does not say what loads it: load has no _target_. "
            f"{_begin('the yaml')}"
        )
    if "finetune" not in node and "finetuning" in config.get("checkpoints", {}):
        raise ValueError(
            f"the yaml of backbone {name!r} has no finetune, how it is fine-tuned. "
            f"{_begin('the yaml')}"
        )


def check_backbones_name(config: DictConfig) -> None:
    """Raise ValueError if backbone.name= is that of another packaged one than was chosen."""
    name, chosen = config.backbone.name, HydraConfig.get().runtime.choices.get("backbone")
    if chosen is not None and name != chosen and name in options("backbone"):
        raise ValueError(
            f"backbone.name={name} gives {chosen} another backbone's name, and does not choose it: "
            f"backbone={name} does."
        )


def _place(node: DictConfig, key: str) -> tuple[DictConfig, str]:
    """Return the mapping that has the last part of a dotted key, and that part."""
    above, _, last = key.rpartition(".")
    place = OmegaConf.select(node, above) if above else node
    return (place if isinstance(place, DictConfig) else OmegaConf.create()), last


def _begin(what: str) -> str:
    return (
        f"Begin {what} with defaults: [open_clip], then name, label and load: {{architecture: ..., "
        f"pretrained: ...}}; conf/backbone/vit_b32_laion2b.yaml is an example."
    )
