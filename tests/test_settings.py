"""Settings: which source wins, what is refused, and that secrets stay secret."""

from pathlib import Path

import pytest

from hfagent.agent.errors import SettingsError
from hfagent.agent.settings import load


@pytest.fixture
def write(tmp_path):
    """Write hfagent.toml."""
    return lambda text: (tmp_path / "hfagent.toml").write_text(text, encoding="utf-8")


def test_defaults_start_in_the_working_directory(tmp_path):
    settings = load({}, cwd=tmp_path, env={})
    assert (settings.backend, settings.planner, settings.budget_usd) == ("local", "rules", None)
    assert (settings.reports_dir, settings.state_dir) == (tmp_path / "training_reports", tmp_path / ".hfagent")
    assert settings.cache_dir == Path.home() / ".cache" / "hfagent"


def test_a_flag_wins_over_a_variable_over_the_file(tmp_path, write):
    write("seed = 1\npoll_s = 1\nmax_hours = 1")
    settings = load(
        {"max_hours": 3, "seed": None},
        cwd=tmp_path,
        env={"HFAGENT_MAX_HOURS": "2", "HFAGENT_POLL_S": "2", "HFAGENT_SEED": ""},
    )
    assert (settings.max_hours, settings.poll_s, settings.seed) == (3, 2, 1)


def test_money_is_counted_in_millionths(tmp_path):
    assert load({"budget_usd": 0.1}, cwd=tmp_path, env={}).budget_micro_usd == 100_000
    assert load({}, cwd=tmp_path, env={}).budget_micro_usd is None


def test_absolute_folders_stay_where_they_are(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    settings = load({"state_dir": elsewhere}, cwd=tmp_path / "here", env={"HFAGENT_CACHE_DIR": "cache"})
    assert (settings.state_dir, settings.cache_dir) == (elsewhere, tmp_path / "here" / "cache")


@pytest.mark.parametrize(
    ("toml", "env", "flags", "says"),
    [
        (
            'backend = "locl"',
            {},
            {},
            ("backend in ", "hfagent.toml is 'locl'", "'local'", "did you mean 'local'?"),
        ),
        ('bakend = "hf"', {}, {}, ("unknown setting 'bakend'", "hfagent.toml", "did you mean 'backend'?")),
        ("[budget]\nusd = 1", {}, {}, ("unknown setting 'budget'", "did you mean 'budget_usd'?")),
        ("seed = ", {}, {}, ("hfagent.toml is not valid TOML",)),
        ("", {"HFAGENT_BUDGET_USD": "-1"}, {}, ("HFAGENT_BUDGET_USD is '-1'", "greater than or equal to 0")),
        ("", {"HFAGENT_BUDGET_USD": "nan"}, {}, ("HFAGENT_BUDGET_USD is 'nan'", "finite")),
        ("", {"HFAGENT_BUDGET": "5"}, {}, ("unknown setting 'budget' (HFAGENT_BUDGET)", "did you mean 'budget_usd'?")),
        ("", {}, {"max_hours": 0}, ("--max-hours is 0", "greater than 0")),
        ("", {"HFAGENT_SEED": "x"}, {"poll_s": "y"}, ("HFAGENT_SEED is 'x'", "--poll-s is 'y'")),
    ],
)
def test_a_mistake_names_its_source_the_value_and_what_is_allowed(tmp_path, write, toml, env, flags, says):
    write(toml)
    with pytest.raises(SettingsError) as refused:
        load(flags, cwd=tmp_path, env=env)
    for part in says:
        assert part in str(refused.value)


def test_an_unreadable_file_is_refused(tmp_path):
    (tmp_path / "hfagent.toml").mkdir()
    with pytest.raises(SettingsError, match="cannot be read"):
        load({}, cwd=tmp_path, env={})


def test_variables_of_others_are_left_alone(tmp_path):
    env = {"HFAGENT_JOB": "1", "HFAGENTX_SEED": "x", "SEED": "x", "PATH": "/bin"}
    assert load({}, cwd=tmp_path, env=env) == load({}, cwd=tmp_path, env={})


def test_secrets_come_from_their_own_variables_and_never_show(tmp_path):
    settings = load({}, cwd=tmp_path, env={"HF_TOKEN": "hf_1q2w", "OPENAI_API_KEY": "sk-3e4r"})
    assert settings.hf_token.get_secret_value() == "hf_1q2w"
    assert settings.openai_api_key.get_secret_value() == "sk-3e4r"
    for text in (repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())):
        assert "1q2w" not in text
        assert "3e4r" not in text


@pytest.mark.parametrize(
    ("env", "flags"), [({"HFAGENT_HF_TOKEN": "hf_123"}, {}), ({}, {"hf_token": "hf_123"}), ({}, {})]
)
def test_a_secret_elsewhere_is_refused_without_being_shown(tmp_path, write, env, flags):
    write("" if env or flags else 'hf_token = "hf_123"')
    with pytest.raises(SettingsError, match="set the variable HF_TOKEN") as refused:
        load(flags, cwd=tmp_path, env=env)
    assert "hf_123" not in str(refused.value)
