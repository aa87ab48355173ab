from __future__ import annotations

from tests.published_set import read


def test_the_species_is_the_group_so_that_whole_species_are_held_out(tmp_path):
    names = [f"{species}/image_{n}.jpg" for species in "abcdef" for n in (1, 2)]
    assert read("flowers", tmp_path, *names) == {name: ("picture", name[0]) for name in names}
