"""What post-training changed: no number of one stage or network stands in the place of another's."""

from __future__ import annotations

from robustok_core.values.result import Result
from robustok_report.sections.post_training import post_training


def gfd(value: float, num_images: int = 20) -> Result:
    return Result(value, higher_is_better=False, num_images=num_images)


def rows(run, **results: Result) -> dict[str, list]:
    """The rows of the table for these results of `compare_decoders`, by stage and metric, as texts and marks."""
    run.results = {name.replace("__", "/"): result for name, result in results.items()}
    table = post_training(run).parts[0]
    return {row[0].hint: [(cell.text, cell.hint, cell.marked) for cell in row[1:]] for row in table.rows}


def test_two_networks_and_two_stages_have_rows_of_their_own(as_reported):
    found = rows(
        as_reported,
        compare__before_gfd_a=gfd(1.0),
        compare__before_gfd_dinov2=gfd(5.0),
        again__before_gfd_a=gfd(99.0),
        again__sigma1_gfd_a=gfd(98.0),
    )
    assert found == {
        "compare/gfd_a, 20 images": [("1", "", False), ("–", "", False)],
        "compare/gfd_dinov2, 20 images": [("5", "", False), ("–", "", False)],
        "again/gfd_a, 20 images": [("99", "", False), ("98", "−1", True)],
    }


def test_nothing_is_the_best_of_unequal_numbers_of_images(as_reported):
    found = rows(as_reported, compare__before_gfd_a=gfd(1.0, 20), compare__sigma1_gfd_a=gfd(2.0, 40))
    ((before, after),) = found.values()
    assert (before[2], after[2]) == (False, False)
    assert list(found) == ["compare/gfd_a, 20 or 40 images"]
