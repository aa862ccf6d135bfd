"""All cases of bad and odd input are in docs/input.md; see documented.py for what is said of each."""

import pytest
import test_input_core
import test_input_det
import test_input_hf
import test_input_seg
from documented import check_names

SECTIONS = {
    "Settings and selections": test_input_core.CASES,
    "Detection: refused": test_input_det.BAD,
    "Detection: trains": test_input_det.ODD,
    "Segmentation: refused": test_input_seg.BAD,
    "Segmentation: trains": test_input_seg.ODD,
    test_input_hf.TITLE: test_input_hf.CASES,
}


@pytest.mark.parametrize("title", SECTIONS)
def test_the_documentation_has_these_cases(title: str) -> None:
    check_names(title, list(SECTIONS[title]))
