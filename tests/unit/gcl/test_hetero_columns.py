"""Columns of features in CSV: numbers and vectors, in one pass over each file."""

from pathlib import Path

import numpy as np
import pytest

from gcl.errors import InvalidGraph, SourceUnreadable
from gcl.readers import hetero_columns
from gcl.readers.hetero_columns import TableFiles, feature_columns


def table_of(folder: Path, *texts: str) -> TableFiles:
    paths = []
    for number, text in enumerate(texts):
        paths.append(folder / f"part-{number}.csv")
        paths[-1].write_text(text)
    return TableFiles("csv", tuple(paths), "nodes item")


def test_each_file_is_read_once_for_all_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    original = hetero_columns.csv_batches
    monkeypatch.setattr(
        hetero_columns, "csv_batches", lambda path, types: reads.append(path.name) or original(path, types)
    )
    table = table_of(tmp_path, "id,f0,f1,g\na,1,2,9\n", "id,f0,f1,g\nb,3,4.5,9\n")
    np.testing.assert_array_equal(feature_columns(table, ["f*", "g"]), [[1, 2, 9], [3, 4.5, 9]])
    assert reads == ["part-0.csv", "part-1.csv"]


@pytest.mark.parametrize("text", ["0.1", "1e-3", "16777217", "3.4028235e38", "-0.30000001192092896", "1e-45"])
def test_numbers_and_vectors_round_alike(text: str, tmp_path: Path) -> None:
    """By way of float64, as numpy reads text."""
    expected = np.array([text], np.float32)
    plain = feature_columns(table_of(tmp_path, f"f\n{text}\n"), ["f"])
    vectors = feature_columns(table_of(tmp_path, f'f\n"{text},{text}"\n'), ["f"])
    assert plain.tobytes() == expected.tobytes()
    assert vectors.tobytes() == expected.tobytes() * 2
    assert plain.dtype == vectors.dtype == np.float32


def test_numbers_stand_beside_vectors_however_they_are_written(tmp_path: Path) -> None:
    table = table_of(tmp_path, 'a,b\n 1 ,"[1, +2.5]"\n+2,"-3.,.5"\n', 'a,b\n3,"[1e1,7 ]"\n')
    found = feature_columns(table, ["b", "a"])
    np.testing.assert_array_equal(found, [[1, 2.5, 1], [-3, 0.5, 2], [10, 7, 3]])


def test_null_rows_are_as_wide_as_the_others(tmp_path: Path) -> None:
    table = table_of(tmp_path, "a,b\n1,\n,\n", 'a,b\n3,"1,2"\n')
    found = feature_columns(table, ["a", "b"])
    nan = np.nan
    np.testing.assert_array_equal(found, [[1, nan, nan], [nan, nan, nan], [3, 1, 2]])


@pytest.mark.parametrize("text", ["1_0", '"1,1_0"', '"1,,2"', "x", '"1 2"', "[]", "0x1p3", "1e"])
def test_what_is_no_number_is_refused_with_its_row(text: str, tmp_path: Path) -> None:
    table = table_of(tmp_path, "a,b\n1,1\n2,2\n", f"a,b\n1,1\n2,{text}\n")
    with pytest.raises(SourceUnreadable, match=r"part-1.csv, row 2, column 'b': expected numbers"):
        feature_columns(table, ["a", "b"])


def test_rows_of_another_width_are_refused_over_all_files(tmp_path: Path) -> None:
    table = table_of(tmp_path, 'a\n"1,2"\n', 'a\n"1,2"\n5\n"1,2,3"\n')
    with pytest.raises(InvalidGraph) as caught:
        feature_columns(table, ["a"])
    assert tuple(caught.value.sample) == ("row 3: 1, not 2", "row 4: 3, not 2")


def test_infinite_and_missing_numbers_are_left_to_the_checks(tmp_path: Path) -> None:
    found = feature_columns(table_of(tmp_path, "a\nnan\ninf\n-Infinity\n1e300\nNaN\n"), ["a"])
    assert found.tobytes() == np.array([[np.nan], [np.inf], [-np.inf], [np.inf], [np.nan]], "f").tobytes()


def test_a_table_without_rows_has_no_features(tmp_path: Path) -> None:
    assert feature_columns(table_of(tmp_path, "a,b\n"), ["a", "b"]).shape[0] == 0
