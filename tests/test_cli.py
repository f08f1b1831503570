"""The command line: exit codes, one sentence a mistake, and nothing that is not documented."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_world
from ruamel.yaml import YAML

import flows.cli
from wm import cli, params
from wm.cli import main
from wm.stages import STAGES
from wm.views import keys

ROOT = Path(__file__).parent.parent


def commands(parser: argparse.ArgumentParser | None = None) -> dict[str, argparse.ArgumentParser]:
    """Every command of `wm`, or every one inside a group, and its parser."""
    actions = (parser or cli.parser(flows.cli.add))._actions
    found = [action.choices for action in actions if isinstance(action, argparse._SubParsersAction)]
    return found[0] if found else {}


def all_commands() -> dict[str, argparse.ArgumentParser]:
    """The same with those inside groups: {"agent keep": …}."""
    found = commands()
    return found | {f"{name} {inner}": one for name, group in found.items() for inner, one in commands(group).items()}


def test_as_a_program_a_mistake_is_one_line_and_exit_code_2(project):
    before = sorted(project.iterdir())
    Path("params.yaml").write_text(tiny_world.PARAMS.replace("zero, seed: 3", "zero, seed: x", 1))
    done = subprocess.run(
        [sys.executable, "-m", "wm", "collect", "tiny"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: params.yaml: models.tiny.seed is 'x'") and done.stderr.count("\n") == 1
    assert sorted(project.iterdir()) == before


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", ["nobody", "../runs", "zero", ""])
def test_a_name_that_is_not_in_params_is_refused(project, capsys, stage, name):
    assert main([stage, name]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and repr(name) in said and "tiny" in said
    assert not Path(".wm").exists()


def test_a_stage_whose_input_is_missing_names_the_command_that_makes_it(project, capsys):
    assert main(["train_vae", "tiny"]) == 2
    assert "dvc repro collect@tiny" in capsys.readouterr().err
    assert not Path(".wm").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["collect", "tiny"], "Stopped; the same command goes on from the last checkpoint.\n"),
        (["params", "check"], "Stopped.\n"),
    ],
)
def test_only_a_stage_goes_on_where_it_was_stopped(project, monkeypatch, capsys, words, said):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(params, "load", stop)
    assert main(words) == 130
    assert capsys.readouterr().err == said


def test_params_prints_what_describe_says(capsys):
    assert main(["params"]) == 0
    assert capsys.readouterr().out.splitlines() == keys.describe()


def test_check_is_silent_where_all_is_right(project, capsys):
    assert main(["params", "check"]) == 0
    assert capsys.readouterr() == ("", "")


def test_stages_are_the_same_everywhere():
    assert [*STAGES] == [name for name in commands() if name in STAGES]
    for stage in STAGES:
        assert (ROOT / "wm" / "stages" / f"{stage}.py").is_file()
        assert stage in params.Experiment.model_fields


def test_every_command_and_option_has_a_help_text():
    for name, command in all_commands().items():
        assert command.description, f"wm {name} has no description"
        for action in command._actions:
            assert action.help, f"wm {name}: {action.option_strings or action.dest} has no help"


def test_there_are_at_most_16_words_besides_the_stages_and_help_shows_each_in_its_group():
    words = commands().keys() - STAGES.keys()
    assert len(words) <= 16
    text = cli.parser(flows.cli.add).format_help()
    for word in (*words, *STAGES):
        assert len(re.findall(rf"^  {word} +[A-Z]", text, re.MULTILINE)) == 1, f"`wm --help` has no line for {word}"
    assert set(cli.FLOWS) == words - commands(cli.parser()).keys()


@pytest.mark.parametrize("word", cli.RENAMED)
def test_a_word_of_an_earlier_version_works_and_names_the_new_one(word, capsys):
    new = cli.RENAMED[word]
    assert new in all_commands() or new == "params check"
    if new.split()[0] in cli.FLOWS:
        assert main([word, "NAME"]) == 2
        assert capsys.readouterr().err == f"error: `python -m wm` has no {word}: give `wm {new} NAME`\n"
        return
    with pytest.raises(SystemExit) as ended:
        main([word, "--help"])
    said = capsys.readouterr()
    assert ended.value.code == 0 and said.err == f"note: `wm {word}` is `wm {new}` now\n"
    assert said.out.startswith(f"usage: python -m wm {new.removesuffix(' check')}")


def test_what_needs_prefect_is_a_word_of_wm_alone(project, capsys, monkeypatch):
    assert main(["run", "tiny"]) == 2
    assert capsys.readouterr().err == (
        "error: `python -m wm` has no run, which calls DVC or Prefect: give `wm run tiny`\n"
    )
    monkeypatch.setenv("PREFECT_HOME", str(project))  # what `prepare` sets is undone after the test
    assert flows.cli.main(["run", "tiny"]) == 2
    assert capsys.readouterr().err.startswith("error: there is no dvc.yaml here: ")
    assert flows.cli.main(["run", "tiny", "--temperatures", "--machine", "big"]) == 2
    assert "--temperatures takes no --machine" in capsys.readouterr().err
    for option in ("--seed", "--seeds"):
        assert flows.cli.main(["run", "tiny", "--temperatures", option, "3"]) == 2
        assert f"--temperatures takes no {option}:" in capsys.readouterr().err


def test_help_loads_neither_prefect_nor_dvc_nor_pytorch():
    heavy = {"prefect", "dvc", "torch", "numpy", "mlflow", "distributed"}
    script = f"import flows.cli, wm.cli, sys; wm.cli.parser(flows.cli.add); print({heavy!r} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_the_shell_completes_commands_options_and_groups(tmp_path):
    script = tmp_path / "wm.bash"
    with script.open("w") as file:
        subprocess.run([sys.executable, "-m", "flows.cli", "--completion", "bash"], cwd=ROOT, stdout=file, check=True)
    for line, expected in (
        ("wm ev", {"evaluate", "evolve"}),
        ("wm agent ro", {"rollback"}),
        ("wm watch --pre", {"--pretrained"}),
        ("wm params ch", {"check"}),
    ):
        words = line.split()
        ask = (
            f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
            'complete -p wm | grep -o "[^ ]*_shtab[^ ]*" | head -n 1 | { read function; $function; '
            'printf "%s\\n" "${COMPREPLY[@]}"; }'
        )
        done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True)
        assert set(done.stdout.split()) == expected, (line, done.stderr)


def test_the_documents_name_every_command_stage_and_experiment():
    """A command is documented as `python -m wm <command>`, stages and experiments by their names in code.

    Trials have a README of their own."""
    documents = "\n".join(
        path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")) if path.stem != "log"
    )
    for name in all_commands():
        if name not in STAGES:
            assert re.search(rf"\bwm {name}\b", documents), f"README.md and docs/ do not say what `wm {name}` does"
    assert re.search(rf"python -m wm ({'|'.join(STAGES)})", documents), "they do not say how a stage runs by hand"
    everything = params.load(ROOT / "params.yaml")
    trials = YAML(typ="safe").load(ROOT / "trials" / "params.yaml")
    experiments = everything.experiments.keys() - trials["experiments"]
    rows = (ROOT / "trials" / "README.md").read_text()
    for where, kind, text, names in (
        ("README.md and docs/", "stage", documents, STAGES),
        ("README.md and docs/", "experiment", documents, experiments),
        ("trials/README.md", "agent", rows, trials["agents"]),
    ):
        code = " ".join(re.findall(r"`[^`\n]+`|```.*?```", text, re.DOTALL))
        named = set(re.findall(r"[a-z][a-z0-9_-]*", code))
        for name in names:
            assert name in named, f"{where}: nothing about the {kind} `{name}`"


@pytest.mark.parametrize("module", ["wm.cli", "flows.cli"])
def test_a_current_folder_that_is_gone_is_one_sentence(module, tmp_path):
    code = f"import os, sys; os.rmdir(os.getcwd()); from {module} import main; sys.exit(main(['lineage', 'smoke']))"
    here = tmp_path / "here"
    here.mkdir()
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=here, env=env, text=True, capture_output=True)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: the current folder is gone"), done
