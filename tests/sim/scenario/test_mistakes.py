"""What is written at any key of any kind of scenario is legal or told in a line: forms inside forms are found wherever
they stand (alone, in a list, as one of several, behind a reader of their own)."""

import math
from typing import get_origin

import pytest
from pydantic import BaseModel, ValidationError

from hwmodels.document import Document
from sim.campaign.form import WholeForm
from sim.campaign.rl.form import LearningForm
from sim.scenario.form import ScenarioForm
from sim.scenario.mistakes import _forms, mistakes, problems
from sim.serving.form import ServingForm

FORMS = (ScenarioForm, ServingForm, WholeForm, LearningForm)
ODD = (
    None, True, 0, -1, 10**30, 1.5, math.nan, math.inf, "", "x", "1 parsec", [], [None], ["x"], {}, {"x": 1},
    [{"x": 1}],
)  # fmt: skip


def paths(form, above=()):
    """Key paths of a form and of forms inside it; 0 is the first item of a list."""
    for name, field in form.model_fields.items():
        path = (*above, field.alias or name)
        yield path
        for inner in _forms(field.annotation):
            yield from paths(inner, (*path, 0) if get_origin(field.annotation) is tuple else path)


def holding(path, value):
    """Nothing but `value` at `path`."""
    for key in reversed(path):
        value = [value] if key == 0 else {key: value}
    return value


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_key_takes_any_value_or_says_in_a_line_what_it_takes(form):
    seen = 0
    for path in paths(form):
        for value in ODD:
            try:
                form.model_validate(holding(path, value))
            except ValidationError as error:
                for where, text in mistakes(form, error):
                    seen += 1
                    assert "\n" not in text and "Input should" not in text and "pydantic" not in text, (path, value)
                    assert "BaseModel" not in text and all(isinstance(part, str | int) for part in where)
    assert seen > 100


def test_a_part_behind_a_reader_of_its_own_and_one_of_several_says_its_own_keys():
    content = {"serve": {"requests": {"prompt": {"most": 0}, "output": {"least_part": 3, "x": 1}}}}
    with pytest.raises(ValidationError) as error:
        ServingForm.model_validate(content)
    said = {problem.key: problem.message for problem in problems(ServingForm, error.value, Document(content))}
    assert said["serve.requests.prompt.most"] == "expected a whole number, 1 or more; found 0"
    assert said["serve.requests.output.least_part"] == "expected a number from 0 to 1; found 3"
    assert said["serve.requests.output.x"] == "unknown key 'x'; legal: least_part, most"


def test_forms_are_found_in_any_annotation():
    class Part(BaseModel):
        pass

    assert list(_forms(tuple[Part | None, ...])) == [Part]


@pytest.mark.parametrize(("short", "meant"), [
    ("tp", "tensor"), ("pp", "pipeline"), ("ep", "expert"), ("cp", "context"), ("sp", "sequence"),
    ("etp", "expert_tensor"),
])  # fmt: skip
def test_what_launch_files_call_parallelism_is_known(short, meant):
    """Each stands for a key that there is, and only there."""
    (line,) = [text for path, text in _said({"parallel": {short: 2}}) if path == ("parallel", short)]
    assert f"did you mean {meant!r}?" in line and meant in line.partition("legal: ")[2]
    assert not any("did you mean" in text for path, text in _said({"batch": {short: 2}}) if path[-1] == short)


def _said(given):
    with pytest.raises(ValidationError) as caught:
        ScenarioForm.model_validate(given)
    return mistakes(ScenarioForm, caught.value)
