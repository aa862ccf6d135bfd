"""A state knows which images it is of."""

import io

import pytest
import torch

from det_seg_agent import ConfigError, Selector, StateError
from det_seg_agent.fingerprint import relative

FILES = [f"/data/set/images/{folder}/{i}.jpg" for folder in ("a", "b") for i in range(3)]


def state_of(files: list[str] | None) -> dict:
    """Return a selector's state as a file gives it back."""
    selector = Selector(len(files or FILES), 4, samples=files)
    selector.begin_pass(0)
    buffer = io.BytesIO()
    torch.save(selector.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def resume(then: list[str] | None, now: list[str] | None) -> None:
    """Load the state of one data set on another."""
    Selector(len(now or FILES), 4, samples=now).load_state_dict(state_of(then))


def test_a_moved_data_set_is_the_same() -> None:
    resume(FILES, FILES)
    resume(FILES, [file.replace("/data/set", "s3://elsewhere") for file in FILES])
    resume(FILES[:3], ["/x/" + file.rsplit("/", 1)[1] for file in FILES[:3]])
    resume(None, None)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ([*FILES, "/data/set/images/b/9.jpg"], ["1 added (b/9.jpg)", "6 then, 7 now"]),
        (FILES[1:], ["1 removed (a/0.jpg)"]),
        ([*FILES[1:], "/data/set/images/b/9.jpg"], ["1 added", "1 removed"]),
        (FILES[::-1], ["the same images, in another order"]),
        ([*FILES[3:], *FILES[:3]], ["in another order"]),  # by bare name nothing would differ
        (FILES[:3], ["3 removed (b/0.jpg"]),  # all that is left shares a deeper folder
        ([*FILES, "/data/set/more/0.jpg"], ["1 added (more/0.jpg)"]),
        ([file.replace(".jpg", ".png") for file in FILES], ["6 added", "6 removed", ", ...)"]),
    ],
)
def test_other_images_are_refused_with_what_differs(now: list[str], words: list[str]) -> None:
    with pytest.raises(StateError) as error:
        resume(FILES, now)
    for word in words:
        assert word in str(error.value)


def test_both_sides_must_know_their_images() -> None:
    with pytest.raises(StateError, match="saved state does not say"):
        resume(None, FILES)
    with pytest.raises(StateError, match="run does not say"):
        resume(FILES, None)
    with pytest.raises(ConfigError, match="6 files of 7"):
        Selector(7, 4, samples=FILES)


def test_the_same_name_in_two_folders() -> None:
    assert relative(FILES)[0] == "a/0.jpg" and relative(FILES)[3] == "b/0.jpg"
