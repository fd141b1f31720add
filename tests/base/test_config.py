import pytest
from pydantic import field_validator

from fasttrain.base.config import Settings, apply_overrides, load_settings, parse_scalar, read_yaml
from fasttrain.base.errors import ConfigError


class Inner(Settings):
    lr: float = 0.1


class Outer(Settings):
    epochs: int = 3
    optimizer: Inner = Inner()


def test_an_unknown_key_names_the_nearest_one():
    with pytest.raises(ConfigError, match=r"unknown key 'epoch'; did you mean 'epochs'"):
        load_settings(Outer, {"epoch": 4})
    with pytest.raises(ConfigError, match=r"'optimizer.lrr'; did you mean 'optimizer.lr'"):
        load_settings(Outer, {"optimizer": {"lrr": 1}})


def test_a_wrong_type_names_key_and_value():
    with pytest.raises(ConfigError, match=r"train: epochs: .*got 'many'"):
        load_settings(Outer, {"epochs": "many"}, "train")


def test_what_a_check_says_stands_as_it_is():
    class Odd(Settings):
        side: int = 1

        @field_validator("side")
        @classmethod
        def _is_odd(cls, value: int) -> int:
            if value % 2 == 0:
                raise ValueError("the side is even; take an odd one")
            return value

    with pytest.raises(ConfigError, match=r"^train: side: the side is even; take an odd one \(got 4\)$"):
        load_settings(Odd, {"side": 4}, "train")


def test_overrides_reach_nested_keys_and_leave_the_input_alone():
    values = {"optimizer": {"lr": 0.1}}
    assert apply_overrides(values, ["optimizer.lr=1e-3", "epochs=7"]) == {"optimizer": {"lr": 1e-3}, "epochs": 7}
    assert values == {"optimizer": {"lr": 0.1}}


@pytest.mark.parametrize("override", ["epochs", "=3"])
def test_a_malformed_override_is_refused(override):
    with pytest.raises(ConfigError, match="key=value"):
        apply_overrides({}, [override])


def test_an_override_below_a_plain_value_is_refused():
    with pytest.raises(ConfigError, match="plain value"):
        apply_overrides({"epochs": 3}, ["epochs.lr=1"])


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("3", 3), ("[0.9, 0.99]", [0.9, 0.99]), ("x", "x")])
def test_scalars(text, value):
    assert parse_scalar(text) == value


def test_yaml_problems_are_sentences(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path / "absent.yaml")
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    with pytest.raises(ConfigError, match="mapping of settings"):
        read_yaml(path)
