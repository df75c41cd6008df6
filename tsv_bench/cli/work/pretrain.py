"""The work of tsv-pretrain."""

import hashlib
import json
import logging
import time
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from tsv_bench.files import replace_atomically, replace_text
from tsv_bench.models import build_mini, pretraining, save_mini
from tsv_bench.models.backbone import normalize
from tsv_bench.models.mini import compact_tokens
from tsv_bench.models.training import train

log = logging.getLogger(__name__)


def pretrain(config: DictConfig) -> None:
    """Train the backbone; write its weights and a log of the training."""
    torch.set_num_threads(config.num_threads)
    torch.manual_seed(config.seed)
    output = Path(config.output)
    recipe = instantiate(config.recipe)
    subjects = [
        pretraining.Subject(
            name=name,
            class_names=list(task.class_names),
            captions=list(config.captions[name]),
            generic=list(config.generic[name]),
        )
        for name, task in config.tasks.items()
    ]
    prompts = [
        template.format(class_name)
        for task in config.tasks.values()
        for template in task.templates
        for class_name in task.class_names
    ]
    images, captions = pretraining.draw_corpus(
        subjects, config.num_images, pretraining.Shares(**config.shares), config.seed
    )
    ids, tokens = compact_tokens(config.architecture, [*captions, *prompts])
    log.info(
        f"{len(images):,} images with {len(set(captions)):,} captions of {len(ids)} word pieces"
    )

    model = build_mini(config.architecture, len(ids))
    loss_at = pretraining.make_loss(
        model,
        images,
        captions,
        tokens,
        normalize,
        batch_size=recipe.batch_size,
        share=config.augmented,
        max_scale=config.max_scale,
        seed=config.seed,
    )
    curve: list[tuple[int, float]] = []
    started = time.monotonic()
    resume = output.with_suffix(".resume")
    train(
        model,
        loss_at,
        recipe,
        label="pretrain",
        resume=resume,
        decayed=lambda name, param: param.ndim >= 2,
        log=lambda step, loss: curve.append((step, round(loss, 4))),
    )
    with torch.no_grad():  # training capped it likewise
        model.logit_scale.clamp_(max=torch.tensor(float(config.max_scale)).log())
    seconds = time.monotonic() - started
    metadata = {
        "recipe": json.dumps(OmegaConf.to_container(config.recipe, resolve=True)),
        "seed": str(config.seed),
        "num_threads": str(config.num_threads),
        "num_images": str(config.num_images),
        "shares": json.dumps(dict(config.shares)),
    }
    replace_atomically(output, lambda path: save_mini(model, ids, path, metadata))
    sha256 = hashlib.sha256(output.read_bytes()).hexdigest()
    record = {
        **metadata,
        "sha256": sha256,
        "bytes": output.stat().st_size,
        "samples": recipe.steps * recipe.batch_size,
        "captions": len(set(captions)),
        "seconds": round(seconds),
        "torch": torch.__version__,
        "loss": curve,
    }
    replace_text(output.with_suffix(".log.json"), json.dumps(record, indent=1))
    resume.unlink(missing_ok=True)
    log.info(f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB, sha256 {sha256}) and its log")
