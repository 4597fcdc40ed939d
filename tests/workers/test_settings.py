"""Settings of `localrpc serve`: the command line, then the environment, a file, and defaults."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import click
import pytest

from localrpc.cli._serve_settings import settings_of
from localrpc.cli.serve import check, serve
from localrpc.workers.settings import Settings
from tests import pages
from tests.skips import root_only
from tests.workers.served import Served, who

# For each parameter: in the environment, in TOML, and what becomes of either.
VALUES: dict[str, tuple[str, str, Any]] = {
    "app": ("a:b", '"a:b"', "a:b"),
    "targets": ("shm:a unix:b", '["shm:a", "unix:b"]', ("shm:a", "unix:b")),
    "workers": ("7", "7", 7),
    "threads": ("20", "20", 20),
    "grace": ("1.5", "1.5", 1.5),
    "boot_timeout": ("9", "9", 9.0),
    "max_memory": ("2M", '"2M"', 2 << 20),
    "max_requests": ("1000", "1000", 1000),
    "watchdog": ("20", "20", 20.0),
    "preload": ("1", "true", True),
    "reload": ("1", "true", True),
    "options": (
        "localrpc.window=100000 localrpc.allow_users=root,5",
        '{ "localrpc.window" = 100000, "localrpc.allow_users" = "root,5" }',
        (("localrpc.window", 100000), ("localrpc.allow_users", "root,5")),
    ),
    "uds_mode": ("0660", '"0660"', 0o660),
    "uds_group": ("staff", '"staff"', "staff"),
    "app_dir": ("/src", '"/src"', "/src"),
    "health": ("0", "false", False),
    "reflection": ("no", "false", False),
    "log_level": ("debug", '"debug"', "debug"),
    "log_json": ("true", "true", True),
}
NEEDED = ("a:b", "--target", "shm:a")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(*words: str) -> Settings:
    with serve.make_context("localrpc serve", list(words)) as context:
        return settings_of(context)[0]


def refusal(*words: str) -> str:
    with pytest.raises(click.UsageError) as caught:
        settings(*words)
    return caught.value.format_message()


def write(folder: Path, text: str, name: str = "pyproject.toml") -> Path:
    (folder / name).write_text(f"[tool.localrpc.serve]\n{text}\n")
    return folder / name


def words_for(name: str) -> tuple[str, ...]:
    """A command line that lacks this parameter alone."""
    return {"app": NEEDED[1:], "targets": NEEDED[:1]}.get(name, NEEDED)


# ---- every parameter ----


def test_every_parameter_is_tried() -> None:
    assert VALUES.keys() == {each.name for each in serve.params} - {"config", "no_config"}
    for name, (_, _, value) in VALUES.items():
        assert getattr(Settings("x:y", ("shm:x",)), name) != value


@pytest.mark.parametrize("name", VALUES)
def test_it_may_come_from_the_environment(
    name: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, _, value = VALUES[name]
    monkeypatch.setenv(f"LOCALRPC_SERVE_{name.upper()}", text)
    assert getattr(settings(*words_for(name)), name) == value


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("hyphen", [False, True])
def test_it_may_come_from_a_file(name: str, hyphen: bool, here: Path) -> None:
    _, toml, value = VALUES[name]
    write(here, f"{name.replace('_', '-') if hyphen else name} = {toml}")
    assert getattr(settings(*words_for(name)), name) == value


def test_variables_that_are_documented_are_those_that_count(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [line.replace(r"\|", "/").split("|") for line in pages.serve_settings()]
    shown = [variable.strip(" `") for _, _, variable, *_ in rows[2:]]
    assert shown == [f"LOCALRPC_SERVE_{(each.name or '').upper()}" for each in serve.params]
    for name, text in (("TARGET", "shm:a unix:b"), ("OPTION", "localrpc.window=100000")):
        monkeypatch.setenv(f"LOCALRPC_SERVE_{name}", text)
    found = settings("a:b")
    assert found.targets == ("shm:a", "unix:b")
    assert found.options == (("localrpc.window", 100000),)


# ---- which one counts ----


def test_the_command_line_comes_before_the_environment_and_that_before_the_file(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> tuple[Any, ...]:
        made = settings("a:b", *words)
        return made.workers, made.targets, made.options, made.reload

    words: list[str] = []
    write(here, 'workers = 2\ntargets = ["shm:f"]\noptions.localrpc.window = 70000\nreload = true')
    assert found() == (2, ("shm:f",), (("localrpc.window", 70000),), True)
    monkeypatch.setenv("LOCALRPC_SERVE_WORKERS", "3")
    monkeypatch.setenv("LOCALRPC_SERVE_TARGETS", "shm:e")
    monkeypatch.setenv("LOCALRPC_SERVE_OPTIONS", "localrpc.allow_users=*")
    monkeypatch.setenv("LOCALRPC_SERVE_RELOAD", "0")
    assert found() == (3, ("shm:e",), (("localrpc.allow_users", "*"),), False)
    words = ["--workers", "1", "--target", "shm:w", "--option", "grpc.x=5", "--reload"]
    assert found() == (1, ("shm:w",), (("grpc.x", 5),), True)


def test_the_nearest_file_counts_and_modules_are_beside_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "a" / "b").mkdir(parents=True)
    write(here, 'app = "far:x"\ntargets = "shm:far"')
    write(here / "a", 'app = "near:x"\ntarget = "shm:near"')
    monkeypatch.chdir("a/b")
    found = settings()
    assert (found.app, found.targets) == ("near:x", ("shm:near",))
    assert found.app_dir == str(here / "a")
    assert settings("other:x").app_dir == "."
    assert settings("--app-dir", "src").app_dir == "src"
    write(here / "a", 'app = "near:x"\ntargets = ["shm:near"]\napp-dir = "../src"')
    assert os.path.normpath(settings().app_dir) == str(here / "src")
    (here / "a" / "pyproject.toml").write_text("[tool.other]\n")
    assert "Missing argument 'MODULE:NAME'" in refusal()


def test_another_file_may_be_named_or_none(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here, "workers = 2")
    write(here, "workers = 3", "other.toml")
    assert settings(*NEEDED, "--config", "other.toml").workers == 3
    assert settings(*NEEDED, "--no-config").workers == 1
    said = "--config names a file, and --no-config none"
    assert said in refusal(*NEEDED, "--config", "other.toml", "--no-config")
    monkeypatch.setenv("LOCALRPC_SERVE_CONFIG", "other.toml")
    assert settings(*NEEDED).workers == 3
    assert settings(*NEEDED, "--no-config").workers == 1
    monkeypatch.setenv("LOCALRPC_SERVE_NO_CONFIG", "1")
    assert said in refusal(*NEEDED)
    assert settings(*NEEDED, "--config", "other.toml").workers == 3
    assert "nowhere.toml cannot be read: No such file" in refusal("--config", "nowhere.toml")
    (here / "other.toml").write_text("workers = 3\n")
    assert f"{here}/other.toml has no [tool.localrpc.serve]" in refusal("--config", "other.toml")


# ---- mistakes ----


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("worker = 2", "[tool.localrpc.serve] has no 'worker'; did you mean 'workers'?"),
        ("boot_timeot = 2", "has no 'boot_timeot'; did you mean 'boot-timeout'?"),
        ("xyz = 2", "has no 'xyz'; it has app, targets, workers, threads, grace, boot-timeout,"),
        ("config = 'x'", "has no 'config'; it has app,"),
        ("target = 'shm:a'\ntargets = ['shm:a']", "has 'target' and 'targets', which are the same"),
        ("log_json = true\nlog-json = true", "has 'log_json' and 'log-json', which are the same"),
        ("workers = 0", "workers in [tool.localrpc.serve] has to be a whole number from 1 to 1000"),
        ("workers = '2'", 'has to be a whole number from 1 to 1000, not "2"'),
        ("workers = true", "has to be a whole number from 1 to 1000, not true"),
        ("workers = 2.0", "has to be a whole number from 1 to 1000, not 2.0"),
        ("grace = -1", "has to be a number of seconds from 0 on, not -1"),
        ("grace = inf", "has to be a number of seconds from 0 on, not Infinity"),
        ("boot-timeout = 0", "boot-timeout in [tool.localrpc.serve] has to be a number of seconds"),
        ("boot-timeout = 0", "above 0, not 0"),
        ("max-memory = 'much'", "has to be a number of bytes, or a size such as '500M', not"),
        ("max-memory = -1", "has to be a number of bytes"),
        ("reload = 1", "has to be true or false, not 1"),
        (
            "log-level = 'loud'",
            "has to be one of 'debug', 'info', 'warning', 'error', not \"loud\"",
        ),
        ("uds-mode = 0o660", "has to be a string such as '0660', with the owner's 0600, not 432"),
        ("uds-group = 1.5", "has to be the name or the number of a group, not 1.5"),
        ("app = 5", "has to be a string, not 5"),
        ("app = 2020-02-02", 'has to be a string, not "2020-02-02"'),
        ("targets = [1]", "has to be a list of strings, not [1]"),
        ("targets = {}", "has to be a list of strings, not {}"),
        ("options = 5", "has to be a table of options, or a list of strings such as 'KEY=VALUE'"),
        ("options = ['x']", "options in [tool.localrpc.serve] has a mistake: 'x' is not KEY=VALUE"),
        ("options.localrpc.windo = 5", "has a mistake: unknown option 'localrpc.windo'"),
        ("options.localrpc.window = 5", "option 'localrpc.window': 5 is not between"),
        ("options.localrpc.window = 'x'", "option 'localrpc.window': expected int"),
        ("options.grpc.x = 2020-02-02", "has a mistake: Expected int, bytes, or behavior"),
        ("x = [", "pyproject.toml: "),
    ],
)
def test_a_mistake_in_the_file_is_named_with_what_is_allowed(
    here: Path, text: str, said: str
) -> None:
    path = write(here, text)
    found = refusal("--workers", "1")
    assert found.startswith(f"{path}: ")
    assert said in found


def test_options_may_be_strings_tables_and_dotted_keys(here: Path) -> None:
    for text in (
        'options = ["localrpc.window=70000", "localrpc.shared_memory=1"]',
        "options.localrpc = { window = 70000, shared_memory = true }",
        '[tool.localrpc.serve.options]\n"localrpc.window" = 70000\nlocalrpc.shared_memory = 1',
    ):
        write(here, text)
        wanted = {"localrpc.window": 70000, "localrpc.shared_memory": 1}
        assert dict(settings(*NEEDED).options) == wanted
    write(here, "options.localrpc.allow_users = ['root', 5]")
    assert settings(*NEEDED).options == (("localrpc.allow_users", ["root", 5]),)


def test_a_mistake_in_the_environment_names_the_variable(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text, said in (
        ("WORKERS", "many", "'many' is not a valid int"),
        ("GRACE", "-1", "-1.0 is not in the range x>=0"),
        ("HEALTH", "perhaps", "'perhaps' is not a valid boolean"),
        ("OPTION", "x", "'x' is not KEY=VALUE"),
    ):
        with monkeypatch.context() as only:
            only.setenv(f"LOCALRPC_SERVE_{name}", text)
            found = refusal(*NEEDED)
        assert said in found
        assert f"(from LOCALRPC_SERVE_{name})" in found
    assert "from LOCALRPC" not in refusal(*NEEDED, "--workers", "many")


def test_what_is_missing_is_named_with_all_its_places(here: Path) -> None:
    for words, shown, name in (
        (NEEDED[1:], "argument 'MODULE:NAME'", "app"),
        (NEEDED[:1], "option '--target'", "targets"),
    ):
        said = f"Missing {shown}: give it here, as LOCALRPC_SERVE_{name.upper()}, or as `{name}` in"
        assert f"{said} [tool.localrpc.serve] of pyproject.toml" in refusal(*words)
    path = write(here, "targets = []")
    assert f"`targets` in [tool.localrpc.serve] of {path}" in refusal("a:b")


@root_only
def test_another_users_file_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "mine").mkdir()
    monkeypatch.chdir("mine")
    path = write(here, "workers = 2")
    os.chown(path, 65533, 65533)
    said = refusal(*NEEDED)
    assert f"{path} belongs to uid 65533" in said
    assert "--no-config" in said
    assert settings(*NEEDED, "--no-config").workers == 1
    assert settings(*NEEDED, "--config", str(path)).workers == 2
    os.chown(here / "mine", 65533, 65533)
    assert settings(*NEEDED).workers == 2  # the application may be its owner's, too
    path.write_text("[tool.other]\n")
    os.chown(here / "mine", 0, 0)
    assert settings(*NEEDED).workers == 1


# ---- as a process ----


def test_without_arguments_a_file_says_all_and_a_broken_one_stops_no_supervisor(
    folder: Path,
) -> None:
    target = f"unix:{folder}/s"
    text = f'app = "app:setup"\ntargets = ["{target}"]\nworkers = 2\ngrace = 20'
    path = write(folder, text)
    (folder / "deeper").mkdir()
    with Served(folder / "deeper") as served:
        assert f"settings of {path}" in served.until("settings")
        workers = served.ready(2)
        assert who(target)[0] in workers
        write(folder, "workers = none")
        served.signal(signal.SIGUSR2)
        served.until("a new supervisor cannot start")
        write(folder, text.replace("grace = 20", "grace = 10"))
        served.signal(signal.SIGUSR2)
        served.ready(2)
        assert served.stop() == 0
    assert "calls in progress have 10 s" in "\n".join(served.lines)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a:b"], "Missing option '--target'"),
        ([*NEEDED, "--uds-mode", "0660"], "opens the sockets to other users"),
        ([*NEEDED, "--option", f"grpc.x={'x' * 70_000}"], "sent at most 65536"),
        ([*NEEDED, "--nothing"], "--nothing"),
    ],
)
def test_what_a_new_supervisor_would_refuse_is_found_before(
    here: Path, words: list[str], said: str
) -> None:
    with pytest.raises(SystemExit, match=said):
        check(words)
    check([*NEEDED])
