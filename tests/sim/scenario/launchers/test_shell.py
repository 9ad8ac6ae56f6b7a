"""Words of a script as Bash has them, held against Bash itself where there is one."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.refused import Refused
from sim.scenario.launchers.arithmetic import number, truth
from sim.scenario.launchers.script import Script
from sim.scenario.launchers.shell import letters

SCRIPTS = {
    "words": "launch --a 1 --b=2 'c d' \"e  f\" g\\ h",
    "lines": "launch --a \\\n  --b 2 \\\n  --c",
    "comments": "# before\nlaunch --a # after\n# launch --b\n",
    "variables": 'A=1\nB="$A 2"\nlaunch $A ${A} "$B" $B \'$A\'',
    "unset": 'launch "${A-x}" "${B:-y z}" ${C:-1 2} "${D:=4}" $D "${E:+no}" end',
    "default": 'A=\nlaunch "${A-x}" "${A:-y}" "${A:+no}" ${A:-${B:-deep}}',
    "arrays": 'X=(--a 1 "b c")\nX+=(--d)\nlaunch "${X[@]}" ${X[@]}',
    "long array": "X=(\n  --a 1  # one\n  # none\n  --b 'c d'\n)\nlaunch \"${X[@]}\"",
    "growing": 'A="--a"\nA+=" --b"\nlaunch $A "$A"',
    "arithmetic": 'N=4\nG=8\nlaunch $((N * G)) $(( $N + 2 )) "$(( (N-1)/2 ))" $((17 % 5))',
    "if": 'A=yes\nif [ "$A" = yes ]; then B=1; else B=2; fi\nlaunch $B',
    "elif": 'A=yes\nif [[ $A == no ]]\nthen\nC=1\nelif [ -n "$A" ]; then\nC=2\nelse C=3\nfi\nlaunch $C',
    "nested": "A=1\nif [ $A -gt 3 ]; then if [ $A = 1 ]; then B=x; fi; B=y; else B=z; fi\nlaunch $B",
    "and": '[ -z "$A" ] && A=5\n[ "$A" = 5 ] || A=6\nlaunch $A\n[ 1 = 2 ] && launch never',
    "case": "S=big\ncase $S in\n  small) N=1 ;;\n  big|huge) N=2;;\n  *) N=3 ;;\nesac\nlaunch $N",
    "case in a line": "S=b\ncase $S in a) N=1;; b) N=2;; esac\nlaunch $N",
    "redirections": "launch --a 2>/dev/null --b 3>>/dev/null </dev/null --c 2>&1",
    "document": 'cat >/dev/null <<END\nlaunch --no "$A\nlaunch --none\n\nEND\nlaunch --a',
    "semicolons": "A=1; B=2; launch $A $B",
    "export": "export A=1 B=2\nexport C=3\nlaunch $A$B$C",
    "quotes inside": 'A="x \\"y\\" z"\nlaunch "$A" \'a"b\' "a\'b"',
    "group": "{ A=1; launch $A; }",
    "function": "A=2\nrun() {\n  launch $A\n}\n",
    "empty": 'A=\nlaunch "" $A "$A" end',
    "subshell": "( A=3; launch $A )",
    "carriage returns": "launch --a \\\r\n --b\r\n",
}


def ours(text: str) -> list[str]:
    commands = Script(letters(text), {}).launched
    return next([word.text for word in words[1:]] for words in commands if words[0].text == "launch")


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_words_are_those_of_bash(name: str) -> None:
    text = SCRIPTS[name].replace("\r", "")
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    rest = "\nrun" if name == "function" else ""
    shown = subprocess.run(
        [bash, "-c", f"launch() {{ printf '%s\\0' \"$@\"; }}\n{text}{rest}"], capture_output=True, text=True, timeout=20
    ).stdout
    assert ours(SCRIPTS[name]) == shown.split("\0")[:-1]


@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=8), max_size=6))
def test_quoted_words_come_through(words: list[str]) -> None:
    """Any text in single quotes, as shlex writes them, is the word again; a carriage return is a line's end."""
    words = [word.replace("\r", "") for word in words]
    import shlex

    (launched,) = Script(letters(f"launch {shlex.join(words)}"), {}).launched
    assert [word.text for word in launched[1:]] == words


def test_a_word_knows_its_line_through_variables() -> None:
    text = "A=(\n --one 1\n --two\n)\nB='--three\n--four'\nrun() { :; }\nlaunch ${A[@]} $B \\\n --five"
    (words,) = [words for words in Script(letters(text), {}).launched if words[0].text == "launch"]
    assert {word.text: word.line for word in words} == {
        "launch": 8, "--one": 2, "1": 2, "--two": 3, "--three": 5, "--four": 6, "--five": 9,
    }  # fmt: skip


def test_what_only_a_shell_knows_stays_a_word() -> None:
    text = "A=$(nproc --all)\nlaunch $A ${B} `date +%s` $((X + 1)) ${C%.sh} $1"
    assert ours(text) == ["$(nproc --all)", "${B}", "`date +%s`", "$((X + 1))", "${C%.sh}", "$1"]


def test_given_variables_stand_instead_of_assigned_ones() -> None:
    script = Script(letters("A=1\nA+=0\nB=${B:-2}\nlaunch $A $B $1"), {"A": "7", "1": "x"})
    assert [word.text for word in script.launched[-1]] == ["launch", "7", "2", "x"]
    assert script.seen == {"A", "B", "1"}


def test_conditions_that_only_a_shell_can_answer_are_told_and_false() -> None:
    script = Script(letters("if [ -f x ]; then A=1; else A=2; fi\nfor i in 1 2; do A=3; done\nlaunch $A"), {})
    assert [word.text for word in script.launched[-1]] == ["launch", "2"]
    assert [(note.line, note.word) for note in script.notes] == [(1, "[ -f x ]"), (2, "for")]


def test_commands_in_a_string_are_commands() -> None:
    text = 'O=\'--a 1 --b "2 3"\'\nsrun -N 2 bash -c "cd /x && python pretrain.py $O"'
    assert [word.text for word in Script(letters(text), {}).launched[-1]] == [
        "python", "pretrain.py", "--a", "1", "--b", "2 3",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["launch 'a", 'launch "a', "A=(1\n2", "launch $(a", "launch ${a"])
def test_what_is_never_closed_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="never closed"):
        Script(letters(text), {})


def test_expansions_that_grow_without_end_are_refused() -> None:
    text = "A=xxxxxxxxxxxxxxxx\n" + "A=$A$A\n" * 60
    with pytest.raises(Refused, match="expands to more than"):
        Script(letters(text), {})


@given(st.text(st.sampled_from("ab=(){}[]$\"'\\`|&;<>#\n -@*!"), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        Script(letters(text), {})
    except Refused as refused:
        assert "\n" not in str(refused)


@given(st.integers(-999, 999), st.integers(-999, 999), st.sampled_from("+-*"))
def test_sums_are_sums(left: int, right: int, sign: str) -> None:
    value = {"+": left + right, "-": left - right, "*": left * right}[sign]
    assert number(f"A {sign} B", {"A": str(left), "B": str(right)}.__getitem__) == value


@pytest.mark.parametrize("text", ["1/0", "2**9", "f(1)", "9" * 60, "(" * 300, "1 < 2", "'a'", "", "X"])
def test_other_sums_have_no_value(text: str) -> None:
    assert number(text, lambda name: "") is None


def test_tests_are_answered() -> None:
    answers = {
        "[ a = a ]": True, "[ a != a ]": False, "[ 3 -ge 4 ]": False, "test x": True, "[ -z ]": True, "true": True,
        "false": False, "[ ! a = b ]": True, "[ -f x ]": None, "command": None, "[ $X = 1 ]": None, "[ a -gt 1 ]": None,
    }  # fmt: skip
    assert {text: truth(text.split()) for text in answers} == answers
