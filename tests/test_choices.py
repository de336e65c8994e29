"""Multiple choice: the order of the options, the letter of the right one, and what the model is asked."""

import json
from collections import Counter

import pytest
import yaml

from elastic.arguments import DataArguments
from elastic.data import load_problems, selected_problems
from elastic.parsing import parse
from rewards.choice_reward import choice_reward

COLUMNS = ["Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]


def of_columns(question, *options):
    return {"Question": question, **dict(zip(COLUMNS, options, strict=True))}


@pytest.fixture
def load(tmp_path):
    def loaded(*records, **options):
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return load_problems(str(path), **options)

    return loaded


def asked(row):
    return row["prompt"][-1]["content"]


def test_options_in_columns_are_asked_in_an_order_of_their_own_and_the_letter_follows_the_right_one(load):
    records = [of_columns(f"What is {n}?", f"right {n}", f"wrong {n}", f"bad {n}", f"false {n}") for n in range(200)]
    rows = load(*records, problem_column="Question", choices_columns=COLUMNS, prompt_suffix="\n\nBox the letter.")
    for n, row in enumerate(rows):
        question, options, suffix = asked(row).split("\n\n")
        assert (question, suffix) == (f"What is {n}?", "Box the letter.")
        by_letter = dict(line.split(") ") for line in options.splitlines())
        assert list(by_letter) == list("ABCD") and by_letter[row["answer"]] == f"right {n}"
        assert sorted(by_letter.values()) == sorted(f"{kind} {n}" for kind in ("right", "wrong", "bad", "false"))
    letters = Counter(row["answer"] for row in rows)
    assert set(letters) == set("ABCD") and min(letters.values()) > 25  # 50 of each expected
    assert load(records[7], problem_column="Question", choices_columns=COLUMNS)[0]["answer"] == rows[7]["answer"]


@pytest.mark.parametrize(("column", "answer"), [("answer", "C"), ("answer", " c "), ("answer_index", 2)])
def test_a_list_of_options_keeps_its_order(load, column, answer):
    record = {"question": "Which?", "options": ["red", "green", "blue"], column: answer}
    (row,) = load(record, options_column="options", answer_column=column)
    assert asked(row) == "Which?\n\nA) red\nB) green\nC) blue"
    assert row["answer"] == "C"
    assert load(record | {"options": json.dumps(record["options"])}, options_column="options", answer_column=column)


def test_a_training_recipe_says_the_same(tmp_path):
    rows = [of_columns(f"Which is {n}?", str(n), "a", "b", "c") | {"level": n} for n in range(6)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {
        **{"dataset_name": str(tmp_path / "data.jsonl"), "choices_columns": COLUMNS, "prompt_suffix": "\n\nBox it."},
        **{"problem_template": "{{ Question }} ({{ level }})", "keep_rows": {"level": {"from": 2, "until": 4}}},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(fields))
    (arguments,) = parse((DataArguments,), ["--config", str(tmp_path / "recipe.yaml")], prog="test")
    problems, dropped = selected_problems(arguments, tokenizer=None)
    assert [asked(problem).split("\n\n")[0] for problem in problems] == ["Which is 2? (2)", "Which is 3? (3)"]
    assert all(f"{problem['answer']}) {n}" in asked(problem) for n, problem in enumerate(problems, 2)) and not dropped


def test_ten_options_and_the_reward_that_grades_them(load):
    options = [f"number {n}" for n in range(10)]
    (row,) = load({"question": "Which?", "options": options, "answer": "J"}, options_column="options")
    solutions = [r"It is \boxed{J}.", r"\boxed{A}", "The answer is (J)."]
    assert choice_reward([""] * 3, [row["answer"]] * 3, solution_text=solutions) == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("record", "options", "sentence"),
    [
        (
            {"options": ["a", "b"], "answer": "C"},
            {"options_column": "options"},
            "line 1: answer is 'C': give the letter",
        ),
        ({"options": ["a", "b"], "answer": 2}, {"options_column": "options"}, "line 1: answer is 2: give the letter"),
        (
            {"options": ["a", "a"], "answer": 0},
            {"options_column": "options"},
            "line 1: options holds .*different options",
        ),
        ({"options": ["a"], "answer": 0}, {"options_column": "options"}, "give 2 to 26 different options"),
        ({"options": ["a", None], "answer": 0}, {"options_column": "options"}, "give the text of each option"),
        ({"options": "a, b", "answer": 0}, {"options_column": "options"}, "options is no list"),
        ({"options": ["a", "b"], "answer": 0}, {"options_column": "choices"}, "options_column is 'choices', but"),
        ({"a": "1", "b": ""}, {"choices_columns": ["a", "b"]}, "a, b holds .*give the text of each option"),
        ({"a": "1", "b": "2"}, {"choices_columns": ["a", "c"]}, "choices_columns is 'c', but"),
        (
            {"a": "1", "b": "2"},
            {"choices_columns": ["a"]},
            "choices_columns is .*: give the column of the right option",
        ),
        (
            {"a": "1", "b": "2"},
            {"choices_columns": ["a", "b"], "options_column": "a"},
            "choices_columns is .*, and options_column is 'a': give one of the two",
        ),
        (
            {"a": "1", "b": "2"},
            {"choices_columns": ["a", "b"], "answer_column": "a"},
            "choices_columns is .*, and answer_column is 'a': give one of the two",
        ),
    ],
)
def test_what_is_no_multiple_choice_is_a_sentence(load, record, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        load({"question": "Which?", **record}, **options)
