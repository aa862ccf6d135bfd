"""The config of a pass that shows each training image once, as it is, and changes no weight. `seg.scoring` uses it."""

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from det_seg_agent.errors import ConfigError
from det_seg_agent.seg.checks import is_type, type_name

DIVISOR = 32  # images are padded to multiples of it: the stride of the last level of most backbones
# Steps of a training pipeline that make further labels, which some heads need.
LABELS = ("GenerateEdge",)
# Keys of the config that a pass without training sets itself.
SET = (
    "agent", "auto_scale_lr", "custom_hooks", "default_hooks", "launcher", "load_from", "log_processor",
    "optim_wrapper", "param_scheduler", "resume", "train_cfg", "visualizer", "train_dataloader.batch_size",
    "train_dataloader.batch_sampler", "train_dataloader.sampler", "train_dataloader.num_batch_per_epoch",
)  # fmt: skip


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse options of the config that a pass without training sets itself.

    Args:
        options: values by dotted keys.

    Raises:
        ConfigError: names the first key and its value.
    """
    for key, value in options.items():
        if any(f"{key}.".startswith(f"{name}.") for name in SET):
            raise ConfigError(
                f"{key}={value} does not go with score: it shows each image once, as it is, and trains nothing. Leave "
                "it out."
            )


def set_pass(config: Any, data: str, weights: str, folder: str) -> None:
    """Change a config that trains, in place, to one pass over the training set with given weights.

    Images are shown in the order of the data set, one at a time, by `plain_pipeline`. Checkpoints, validation, loggers
    other than the local one, and hooks and schedules of the recipe are left out.

    Args:
        config: the whole config.
        data: name of its file, for messages.
        weights: file of the checkpoint.
        folder: folder for the results.

    Raises:
        ConfigError: if the config has no training set or no model, or a pipeline does not load images.
    """
    for key in ("train_dataloader", "model"):
        if not config.get(key):
            raise ConfigError(f"data={data}: the config has no {key}; give one that trains.")
    tested = _tested(config)
    for leaf in leaves(config.train_dataloader.dataset):
        leaf["pipeline"] = plain_pipeline(leaf.get("pipeline") or [], tested, data)
    loader = config.train_dataloader
    for key in ("batch_sampler", "num_batch_per_epoch", "drop_last"):
        loader.pop(key, None)
    loader.update(batch_size=1, sampler={"type": "AgentSampler", "shuffle": False})
    loader["persistent_workers"] = bool(loader.get("num_workers"))
    _set_model(config)
    for part in ("val", "test"):
        for key in (f"{part}_dataloader", f"{part}_cfg", f"{part}_evaluator"):
            config[key] = None
    config.train_cfg = {"type": "AgentEpochLoop", "max_epochs": 1}
    config.agent = {"strategy": "full", "trace": False}
    config.custom_hooks = [{"type": "AgentHook"}, {"type": "ScoringHook"}]
    config.default_hooks = {
        "checkpoint": None, "param_scheduler": None, "logger": {"type": "LoggerHook", "interval": 50},
    }  # fmt: skip
    config.optim_wrapper = {"type": "ScoringOptimWrapper", "optimizer": {"type": "SGD", "lr": 0.0}}
    config.param_scheduler = config.visualizer = config.activation_checkpointing = None
    config.efficient_conv_bn_eval, config.compile = None, False
    config.auto_scale_lr = {"base_batch_size": 1, "enable": False}
    config.log_processor = {"by_epoch": True}
    config.load_from, config.resume, config.launcher, config.work_dir = weights, False, "none", folder
    config.experiment_name = f"score_{abs(hash(folder))}"  # the host keeps runners by name
    if config.get("default_scope") is None:
        config.default_scope = "mmseg"


def plain_pipeline(pipeline: list[Any], tested: list[Any], data: str = "") -> list[Any]:
    """Return a training pipeline without augmentation, whose images are those that the model sees in validation.

    It loads image and mask as the training does, then does what the validation does between loading and packing, such
    as `Resize`, to both of them; labels that a head needs beside the mask are made as in training.

    Args:
        pipeline: configs of the training pipeline's steps.
        tested: those of the validation pipeline.
        data: name of the config, for messages.

    Raises:
        ConfigError: if no step of the training pipeline loads something.
    """
    loads = [step for step in pipeline if type_name(step["type"]).startswith("Load")]
    if not loads:
        names = ", ".join(type_name(step["type"]) for step in pipeline) or "none"
        raise ConfigError(
            f"data={data}: train_dataloader.dataset.pipeline has no step whose name begins with Load, which tells "
            f"loading from augmentation; its steps: {names}. Name a loader of your own LoadSomething."
        )
    between = [step for step in tested if not type_name(step["type"]).startswith(("Load", "Pack"))]
    labels = [step for step in pipeline if type_name(step["type"]) in LABELS]
    packs = [step for step in pipeline if type_name(step["type"]).startswith("Pack")]
    return [*loads, *between, *labels, *(packs or [{"type": "PackSegInputs"}])]


def leaves(dataset: Any) -> Iterator[Any]:
    """Yield the configs of the data sets inside wrappers, in order."""
    inner = dataset.get("datasets") or ([dataset["dataset"]] if "dataset" in dataset else [])
    for part in inner:
        yield from leaves(part)
    if not inner:
        yield dataset


def _tested(config: Any) -> list[Any]:
    """Return the pipeline of the validation, else that of the test; empty if there is neither."""
    loaders = (config.get(f"{part}_dataloader") or {} for part in ("val", "test"))
    found = (leaf for loader in loaders if loader.get("dataset") for leaf in leaves(loader["dataset"]))
    return list(next((leaf["pipeline"] for leaf in found if leaf.get("pipeline")), []))


def _set_model(config: Any) -> None:
    """Have the model's input padded as in testing, else to multiples of 32, and no pretrained weights fetched."""
    given = config.model.get("data_preprocessor") or config.get("data_preprocessor")
    if given is not None:
        padding = given.get("test_cfg") or {"size_divisor": DIVISOR}
        if is_type(given.get("type"), "SegDataPreProcessor") or given.keys() & {"size", "size_divisor"}:
            given.update(size=padding.get("size"), size_divisor=padding.get("size_divisor"))
        if "batch_augments" in given:
            given["batch_augments"] = None
    _forget_pretrained(config.model)


def _forget_pretrained(node: Any) -> None:
    """Take the names of pretrained weights out of a model's config, in place: the given weights replace them."""
    if isinstance(node, list | tuple):
        for each in node:
            _forget_pretrained(each)
    elif isinstance(node, MutableMapping):
        for key, value in list(node.items()):
            if key == "pretrained" or (key == "init_cfg" and _is_pretrained(value)):
                node[key] = None
            else:
                _forget_pretrained(value)


def _is_pretrained(given: Any) -> bool:
    """Return whether an `init_cfg` names a file of weights."""
    parts = given if isinstance(given, list | tuple) else [given]
    return any(isinstance(part, Mapping) and type_name(part.get("type")) == "Pretrained" for part in parts)
