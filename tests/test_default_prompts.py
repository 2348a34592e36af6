"""Every model has a prompt set of its own that it can read: captions, or the classes of a class-conditional one."""

import pytest

import varlab as vl
from varlab.errors import VarlabError
from varlab.report_inputs import check_inputs
from varlab.scenes.prompt_sets import choose, dealt, distinct, prompts
from varlab.training.var import class_names
from varlab.weights.registry import MODELS
from varlab.weights.zoo import check_captions


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("infinity-l")])
def test_the_default_prompts_of_a_model_can_be_read_by_it(name: str) -> None:
    chosen = prompts(n=20, model=name)
    assert chosen.name == ("classes" if "var" in name.split("-") else "scenes")
    check_captions(MODELS[name], chosen)
    with pytest.raises(
        VarlabError, match="no class" if chosen.name == "classes" else "has no classes: it reads captions"
    ):
        check_captions(MODELS[name], prompts("scenes" if chosen.name == "classes" else "classes", n=20, model=name))


def test_classes_come_each_once_before_any_comes_twice() -> None:
    chosen = prompts("classes", n=96, model="mini-var")
    assert set(chosen[:48]) == set(chosen[48:]) == set(class_names()) and chosen[:48].texts != chosen[48:].texts
    assert prompts("classes", model="mini-var").texts == chosen.texts[:48]
    assert prompts(n=8, model="mini-var").texts == chosen.texts[:8] != prompts(n=8, model="mini-var", seed=1).texts
    assert set(prompts(model="var-d16")) == {str(number) for number in range(1000)}
    with pytest.raises(VarlabError, match="those of a model"):
        prompts("classes")
    seen, unseen = dealt(None, 30, 18, 0, "mini-var")
    assert {*seen, *unseen} == set(class_names())
    with pytest.raises(VarlabError, match="'classes' holds 48 different texts, and 49"):
        distinct(None, 49, "mini-var")


def test_log_and_compare_of_a_class_model_take_its_classes(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = vl.load("mini-var")
    expected = prompts("classes", n=2, model=model).texts
    log = vl.log(model, n=2, probes=["residual-spectrum:preview=off"])
    assert log.attrs["prompt_set"] == "classes" and log.attrs["prompts"] == expected
    assert vl.log("mini-var", folder=log.encoding["source"].removesuffix("log.zarr")).attrs["n"] == 2
    found = vl.compare(model, n=2, specs=["truncate:last=1"], frontier=False)
    assert found.facts["prompt_set"] == "classes" and list(found.prompts.prompt[:2]) == expected


def test_notebooks_take_the_default_of_the_model_they_are_given() -> None:
    defaults = {"model": "mini-infinity", "prompt_set": None, "n": 24}
    for model in ("mini-var", "mini-hart", "nano-infinity"):
        assert check_inputs(defaults, {"model": model}) == {"model": model}
    with pytest.raises(VarlabError, match="take the prompt set 'classes'"):
        check_inputs(defaults, {"model": "mini-var", "prompt_set": "scenes"})


def test_choose_takes_at_most_what_is_there(tmp_path) -> None:
    path = tmp_path / "three.txt"
    path.write_text("a\nb\nc\n")
    assert choose(path, most=32).texts == ["a", "b", "c"] and choose(path, most=2).texts == ["a", "b"]
    with pytest.raises(VarlabError, match="holds 3 prompts, not 4"):
        choose(path, 4, most=2)
    assert choose(["a", "b", "c"], 2).texts == ["a", "b"] and len(choose(None, most=5)) == 5
