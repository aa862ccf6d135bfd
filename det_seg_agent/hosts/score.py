"""`det-seg-agent score`: a full pass with trained weights and without training, for the same rows as a run."""

from det_seg_agent.hosts.commands import main_of

USAGE = """usage: det-seg-agent score weights=FILE data=DATA [key=value ...]

Shows every training image of a data set to a trained model once, as it is and without training, and leaves
samples.parquet, samples.csv and data.html in a folder of its own. No weight changes.

  weights=FILE.pt   data=  an Ultralytics data YAML or a COCO folder; keys are those of `yolo train`: imgsz=, batch=,
                    device=, project=, name= ...
  weights=FILE.pth  data=  an MMEngine config, CONFIG.py; keys are those of --cfg-options, and work_dir=, the folder for
                    the results (by default work_dirs/ and the config's name with _score)"""


def main(words: list[str]) -> int:
    """Score data of either toolbox: those of an MMEngine config, or of Ultralytics."""
    if not words or {"-h", "--help", "help"} & set(words):
        print(USAGE)
        return 0
    data = next((word.partition("=")[2] for word in reversed(words) if word.startswith("data=")), "")
    return main_of("seg.scoring" if data.endswith(".py") else "det.scoring")(words)
