"""Versions of a tiny checkpoint's weights, whole or as an adapter, and what each makes of what was said."""

import copy
import json
import shutil
import warnings

import torch
from prh.tests.models.support import conversation, full_logits, model_of, noise, prompt_ids, say


def question(key="s#0"):
    talk = conversation(key)
    say(talk, "system", "Be brief.")
    say(talk, "user", noise((84, 56), 1), f"What is {key}?")
    return talk


def plain_rope(folder, target):
    """A copy of a checkpoint of ours whose positions are rotated in three parts, as vLLM knows them."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    rope = config["text_config"]["rope_parameters"]
    half = sum(rope["mrope_section"])
    rope["mrope_section"] = [half - 2 * (half // 3), half // 3, half // 3]
    (target / "config.json").write_text(json.dumps(config))
    return target


def untied(folder):
    """Give a checkpoint's output layer weights of its own, in place."""
    model = copy.deepcopy(model_of(folder))
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False
    model.save_pretrained(folder)
    model_of.cache_clear()
    return folder


def moved(folder, target, seed=0):
    """The checkpoint with other weights, in a folder of its own; the model."""
    model = copy.deepcopy(model_of(folder))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
    model.save_pretrained(target)
    return model


def adapter(folder, target, seed=0, rank=4, modules=("q_proj", "v_proj")):
    """An adapter that changes what is said, in a folder of its own; the model with it."""
    import peft

    torch.manual_seed(seed)
    how = peft.LoraConfig(r=rank, target_modules=list(modules), init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft still uses names that transformers has retired
        model = peft.get_peft_model(copy.deepcopy(model_of(folder)), how).eval()
    model.save_pretrained(target)
    return model


def learners(folder, model, turn, talk=None, temperature=1.0):
    """The log-probabilities of a turn that answers a conversation, under a model; None for the checkpoint's own."""
    talk = talk or question()
    prompt = prompt_ids(folder, talk, 28)
    law = (full_logits(folder, talk, [*prompt, *turn.ids], model) / temperature).log_softmax(-1)
    return [float(law[len(prompt) + place - 1, number]) for place, number in enumerate(turn.ids)]
