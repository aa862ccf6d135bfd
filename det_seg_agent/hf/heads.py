"""Which models are supported, and why others are not. `hf.checks` and `hf.tap` use it."""

from typing import Any

from torch import nn

from det_seg_agent.errors import ConfigError

# Parts of the names of the host's classes, and the kind of their signals.
KINDS = {
    "ForImageClassification": "classes",
    "ForSequenceClassification": "classes",
    "ForSemanticSegmentation": "pixels",
    "ForCausalLM": "tokens",
    "LMHeadModel": "tokens",
}
QUERIES = (
    "matches queries to the objects of the whole batch and divides by their number: its loss has terms of the batch, "
    "and so none of single images that add up to it"
)
REFUSED = {
    "ForImageClassificationWithTeacher": "has no loss: it is for inference",
    "ForObjectDetection": QUERIES,
    "ForInstanceSegmentation": QUERIES,
    "ForUniversalSegmentation": QUERIES,
    "ForPanopticSegmentation": QUERIES,
    "ForSegmentation": QUERIES,
    "ForMaskedLM": "masks other tokens each time, so that the loss of a text says little about the text",
    "ForConditionalGeneration": "is no decoder alone; encoders with decoders were not tried",
}
# Names of the module that makes the logits, in the order in which they are looked for.
HEADS = {
    "classes": ("classifier", "score", "head", "fc", "classification_head", "cls_classifier"),
    "pixels": ("decode_head", "segmentation_head", "head"),
}


def bare(model: Any) -> Any:
    """Return the model inside peft's wrapper, if there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") and hasattr(model, "peft_config") else model


def kind_of(model: Any) -> str:
    """Return the kind of a model's signals: 'classes', 'pixels' or 'tokens'.

    Raises:
        ConfigError: if its loss cannot be taken apart by sample; names the class and the reason.
    """
    model = bare(model)
    names = [cls.__name__ for cls in type(model).__mro__]
    for name in names:
        reason = next((why for part, why in REFUSED.items() if name.endswith(part)), None)
        if reason is not None:
            raise ConfigError(f"model {names[0]}: it {reason}. Train it with the host's Trainer.")
        kind = next((kind for part, kind in KINDS.items() if name.endswith(part)), None)
        if kind is not None:
            refuse_other_problems(model, kind)
            return kind
    raise ConfigError(
        f"model {names[0]}: its loss cannot be taken apart by sample. Supported: models of transformers (or classes "
        f"that inherit from one) whose name ends on {', '.join(KINDS)}."
    )


def refuse_other_problems(model: Any, kind: str) -> None:
    """Refuse losses that are no cross-entropy over classes.

    Raises:
        ConfigError: if it is a regression, or several labels belong to a sample.
    """
    problem = getattr(model.config, "problem_type", None)
    if kind == "classes" and problem not in (None, "single_label_classification"):
        raise ConfigError(
            f"model.config.problem_type={problem!r}: its loss is no cross-entropy over classes. Set "
            "'single_label_classification', or train with the host's Trainer."
        )
    if kind != "tokens" and model.config.num_labels < 2:
        raise ConfigError(
            f"model.config.num_labels={model.config.num_labels}: the entropy needs two classes at least. Set "
            "num_labels=2, or train with the host's Trainer."
        )


def ignore_index_of(model: Any, kind: str) -> int:
    """Return the label that the model's loss leaves out."""
    config = bare(model).config
    if kind != "pixels":
        return -100
    for name in ("semantic_loss_ignore_index", "loss_ignore_index"):
        if hasattr(config, name):
            return int(getattr(config, name))
    return 255


def head_of(model: Any, kind: str, name: str | None) -> nn.Module:
    """Return the module whose input gives the features; of `pixels`, its output has the logits as well.

    Args:
        model: the model, perhaps in peft's wrapper.
        kind: see `kind_of`.
        name: its name in the model, where the user gave one.

    Raises:
        ConfigError: if there is no such module.
    """
    model = bare(model)
    modules = dict(model.named_modules())
    if name is not None:
        if name not in modules:
            raise ConfigError(
                f"agent.head={name!r}: {type(model).__name__} has no module of that name. model.named_modules() lists "
                "them; leave agent.head out for the usual one."
            )
        return modules[name]
    if kind == "tokens":
        head = model.get_output_embeddings()
    else:
        head = next((modules[name] for name in HEADS[kind] if name in modules), None)
    if head is None:
        raise ConfigError(
            f"model {type(model).__name__}: the module that makes its logits is not known. Give its name as "
            "agent={'head': ...}; model.named_modules() lists them."
        )
    return head
