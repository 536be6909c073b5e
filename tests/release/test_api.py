import runpy
from pathlib import Path

API = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "api.py"))


def test_the_public_interface_is_the_committed_one() -> None:
    """After a change that is meant: `make api`; docs/versions.md says which change needs which version."""
    assert API["TEXT"].read_text(encoding="utf-8").splitlines() == API["text"]().splitlines()


def test_every_public_name_is_described() -> None:
    text = API["text"]()
    assert "\n  def fabricate(" in text
    assert "\n  class FormatError(DiptychError)\n" in text
    assert "\n  load of diptych.predict.predictor\n" in text
    # a field of a data class with its type, and a method without `self`
    assert "\n    ids: tuple[str, ...]\n" in text
    assert "(self" not in text
