"""Settings of a run of the `Trainer`. `hf.trainer` parses them."""

from pydantic import Field

from det_seg_agent.settings import Settings


class HfSettings(Settings):
    """`Settings` plus those that only this adapter has."""

    head: str | None = Field(
        None, description="name of the module whose input gives the features, as in model.named_modules()"
    )
