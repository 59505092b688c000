"""The emulated Hub as the genuine clients see it: the contract that tests over it rest on."""

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    BucketNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tests.emulator.server import Emulator
from tiny_model import write_tiny_model

CARD = "---\nlicense: mit\nbase_model: ada/tiny\ntags:\n- sft\n---\n# A model\n"


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(autouse=True)
def quiet(emulator: Emulator) -> Iterator[None]:
    yield
    emulator.faults.clear()


@pytest.fixture(scope="module")
def token(emulator: Emulator) -> str:
    return emulator.hub.add_user("ada", orgs={"lab": "admin", "club": "read"})


@pytest.fixture
def api(emulator: Emulator, token: str) -> HfApi:
    return HfApi(endpoint=emulator.endpoint, token=token)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


def run(emulator: Emulator, token: str, script: str, *args: str, **variables: str) -> str:
    """A program of its own, as HF_ENDPOINT is read when libraries are imported."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *args],
        env=emulator.env(token) | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def status(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


# People.


def test_whoami_tells_roles_and_organisations(emulator: Emulator, api: HfApi) -> None:
    me = api.whoami()
    assert (me["name"], me["canPay"], me["isPro"], me["auth"]["accessToken"]["role"]) == ("ada", True, False, "write")
    assert {org["name"]: org["roleInOrg"] for org in me["orgs"]} == {"lab": "admin", "club": "read"}
    fine = emulator.hub.add_user("fay", role="fineGrained", permissions=["repo.write"])
    access = HfApi(endpoint=emulator.endpoint, token=fine).whoami()["auth"]["accessToken"]
    assert access["fineGrained"]["scoped"][0]["permissions"] == ["repo.write"]


def test_an_unknown_or_expired_token_is_told_so(emulator: Emulator) -> None:
    expired = emulator.hub.add_user("eve")
    emulator.hub.expire(expired)
    emulator.hub.put_files("model", "eve/open", {"a.txt": b"a"})
    for bad in (expired, "hf_unknown"):
        api = HfApi(endpoint=emulator.endpoint, token=bad)
        with pytest.raises(HfHubHTTPError) as error:
            api.whoami()
        assert status(error) == 401
        with pytest.raises(HfHubHTTPError, match="Invalid credentials in Authorization header") as error:
            api.model_info("eve/open")
        assert not isinstance(error.value, RepositoryNotFoundError)


def test_a_private_repo_is_not_there_for_others(emulator: Emulator, api: HfApi) -> None:
    api.create_repo("ada/secret", private=True)
    stranger = HfApi(endpoint=emulator.endpoint, token=emulator.hub.add_user("bob"))
    with pytest.raises(RepositoryNotFoundError) as error:
        stranger.model_info("ada/secret")
    assert error.value.response.headers["X-Error-Code"] == "RepoNotFound"
    with pytest.raises(RepositoryNotFoundError, match="Invalid username or password") as error:
        HfApi(endpoint=emulator.endpoint, token=False).model_info("ada/secret")
    assert status(error) == 401
    assert not [one for one in stranger.list_models(author="ada") if one.id == "ada/secret"]
    assert [one for one in api.list_models(author="ada") if one.id == "ada/secret"]


def test_who_may_not_write_is_told_403(emulator: Emulator, api: HfApi) -> None:
    api.create_repo("ada/readable")
    reader = HfApi(endpoint=emulator.endpoint, token=emulator.hub.add_user("ada", role="read"))
    assert reader.model_info("ada/readable").id == "ada/readable"
    narrow = HfApi(endpoint=emulator.endpoint, token=emulator.hub.add_user("ada", role="fineGrained"))
    for one, repo_id in ((reader, "ada/readable"), (narrow, "ada/readable"), (api, "bob/other"), (api, "club/other")):
        with pytest.raises(HfHubHTTPError) as error:
            one.create_repo(repo_id)
        assert status(error) == 403
    with pytest.raises(HfHubHTTPError, match="write token") as error:
        reader.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="ada/readable")
    assert status(error) == 403
    with pytest.raises(HfHubHTTPError) as error:
        reader.create_bucket("ada/readable")
    assert status(error) == 403
    assert api.create_repo("lab/shared").repo_id == "lab/shared"


def test_a_gated_repo_opens_for_who_was_let_in(emulator: Emulator, api: HfApi, tmp_path: Path) -> None:
    emulator.hub.put_files("model", "meta/gated", {"config.json": b"{}"})
    owner = HfApi(endpoint=emulator.endpoint, token=emulator.hub.add_user("meta"))
    owner.update_repo_settings("meta/gated", gated="manual")
    assert api.model_info("meta/gated").gated == "manual"
    with pytest.raises(GatedRepoError, match="not in the authorized list") as error:
        api.hf_hub_download("meta/gated", "config.json", cache_dir=tmp_path)
    assert status(error) == 403
    with pytest.raises(GatedRepoError):
        api.auth_check("meta/gated")
    emulator.hub.grant("model", "meta/gated", "ada")
    api.auth_check("meta/gated")
    assert Path(api.hf_hub_download("meta/gated", "config.json", cache_dir=tmp_path)).read_text() == "{}"


# Repos.


def test_a_folder_goes_up_once_and_comes_down_whole(emulator: Emulator, api: HfApi, tmp_path: Path) -> None:
    folder = tmp_path / "up"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "deep" / "er" / "data.bin").write_bytes(b"\0\1" * 50_000)
    (folder / "empty").write_bytes(b"")
    url = api.create_repo("ada/folder", private=True)
    assert (url, url.repo_id) == (f"{emulator.endpoint}/ada/folder", "ada/folder")
    first = api.upload_folder(repo_id="ada/folder", folder_path=folder, commit_message="All of it")
    again = api.upload_folder(repo_id="ada/folder", folder_path=folder)
    assert again.oid == first.oid
    assert [one.title for one in api.list_repo_commits("ada/folder")] == ["All of it", "initial commit"]
    down = Path(api.snapshot_download("ada/folder", cache_dir=tmp_path / "cache"))
    assert down.name == first.oid
    for path in ("README.md", "deep/er/data.bin", "empty"):
        assert (down / path).read_bytes() == (folder / path).read_bytes()
    assert emulator.hub.read_file("model", "ada/folder", "empty") == b""
    names = {one.path for one in api.list_repo_tree("ada/folder", recursive=True)}
    assert names == {".gitattributes", "README.md", "empty", "deep", "deep/er", "deep/er/data.bin"}
    assert {one.path for one in api.list_repo_tree("ada/folder", "deep")} == {"deep/er"}
    info = api.get_paths_info("ada/folder", ["deep", "README.md", "none"], expand=True)
    assert {one.path: one.last_commit and one.last_commit.title for one in info} == {
        "deep": "All of it",
        "README.md": "All of it",
    }
    api.delete_folder("deep", "ada/folder")
    assert not api.file_exists("ada/folder", "deep/er/data.bin")
    assert api.file_exists("ada/folder", "deep/er/data.bin", revision=first.oid)


@pytest.mark.parametrize("client", ["HF_HUB_DISABLE_XET", "NOTHING"])
def test_large_files_go_by_lfs_or_by_xet(emulator: Emulator, token: str, client: str, tmp_path: Path) -> None:
    (tmp_path / "big.bin").write_bytes(b"0123456789" * 600_000 + client.encode())
    (tmp_path / "small.txt").write_text("small")
    before = len(emulator.requests)
    script = """
        import sys
        from huggingface_hub import HfApi, hf_hub_download
        folder, name = sys.argv[1:]
        api = HfApi()
        api.create_repo(name)
        done = api.upload_folder(repo_id=name, folder_path=folder)
        assert api.upload_folder(repo_id=name, folder_path=folder).oid == done.oid
        api.upload_file(repo_id=name, path_or_fileobj=folder + "/big.bin", path_in_repo="copy.bin")
        print(open(hf_hub_download(name, "big.bin"), "rb").read() == open(folder + "/big.bin", "rb").read())
        print(api.get_paths_info(name, ["copy.bin"])[0].lfs.size)
    """
    name = f"ada/by-{client.lower().replace('_', '-')}"
    variables = {"HF_HUB_DISABLE_XET": "1"} if client == "HF_HUB_DISABLE_XET" else {"HF_HUB_DISABLE_XET": "0"}
    said = run(emulator, token, script, str(tmp_path), name, **variables)
    assert said.split() == ["True", str((tmp_path / "big.bin").stat().st_size)]
    paths = [seen.path for seen in emulator.requests[before:]]
    assert any(path.startswith("/lfs-storage/") for path in paths) == (client == "HF_HUB_DISABLE_XET")
    assert any("xet-write-token" in path for path in paths) == (client == "NOTHING")


def test_a_commit_on_an_old_parent_is_refused(api: HfApi) -> None:
    api.create_repo("ada/parent")
    old = api.model_info("ada/parent").sha
    api.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id="ada/parent", parent_commit=old)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as error:
        api.upload_file(path_or_fileobj=b"2", path_in_repo="a", repo_id="ada/parent", parent_commit=old)
    assert status(error) == 412
    operations = [CommitOperationAdd("b", b"2"), CommitOperationDelete("a")]
    api.create_commit("ada/parent", operations=operations, commit_message="Both")
    assert sorted(api.list_repo_files("ada/parent")) == [".gitattributes", "b"]
    with pytest.raises(RemoteEntryNotFoundError):
        api.delete_file("a", "ada/parent")


def test_what_is_missing_is_said_by_kind(api: HfApi, tmp_path: Path) -> None:
    api.create_repo("ada/here")
    assert (api.repo_exists("ada/here"), api.repo_exists("ada/gone")) == (True, False)
    assert (api.file_exists("ada/here", ".gitattributes"), api.file_exists("ada/here", "x")) == (True, False)
    assert not api.revision_exists("ada/here", "v9")
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download("ada/here", "x", cache_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download("ada/here", ".gitattributes", revision="v9", cache_dir=tmp_path)
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree("ada/here", "none"))
    with pytest.raises(HfHubHTTPError) as error:
        api.create_repo("ada/here")
    assert status(error) == 409
    assert api.create_repo("ada/here", exist_ok=True).repo_id == "ada/here"


def test_branches_tags_and_a_new_name(api: HfApi) -> None:
    api.create_repo("ada/refs", repo_type="dataset")
    api.create_branch("ada/refs", branch="exp/one", repo_type="dataset")
    api.create_tag("ada/refs", tag="v1", repo_type="dataset")
    refs = api.list_repo_refs("ada/refs", repo_type="dataset")
    assert {one.name for one in refs.branches} == {"main", "exp/one"}
    assert [one.name for one in refs.tags] == ["v1"]
    assert api.dataset_info("ada/refs", revision="v1").sha == refs.tags[0].target_commit
    api.delete_tag("ada/refs", tag="v1", repo_type="dataset")
    api.delete_branch("ada/refs", branch="exp/one", repo_type="dataset")
    api.move_repo("ada/refs", "lab/refs", repo_type="dataset")
    assert api.repo_exists("lab/refs", repo_type="dataset")
    api.delete_repo("lab/refs", repo_type="dataset")
    assert not api.repo_exists("lab/refs", repo_type="dataset")


def test_a_card_is_read_back_and_updated(emulator: Emulator, token: str) -> None:
    script = """
        from huggingface_hub import HfApi, ModelCard, ModelCardData, metadata_update
        api = HfApi()
        api.create_repo("ada/card")
        data = ModelCardData(license="mit", library_name="peft", base_model="ada/tiny", datasets=["ada/data"])
        ModelCard.from_template(data, model_id="ada/card").push_to_hub("ada/card")
        metadata_update("ada/card", {"license": "apache-2.0", "tags": ["night"]}, overwrite=True)
        assert ModelCard.load("ada/card").data.license == "apache-2.0"
        info = api.model_info("ada/card")
        assert info.card_data.base_model == "ada/tiny" and info.library_name == "peft", info
        print(*info.tags)
    """
    assert {"night", "peft", "license:apache-2.0", "base_model:ada/tiny", "dataset:ada/data"} <= set(
        run(emulator, token, script).split()
    )


def test_models_are_found_by_words_and_owner(emulator: Emulator, api: HfApi) -> None:
    emulator.hub.put_files("model", "finders/math-7b", {"README.md": CARD.encode()})
    emulator.hub.put_files("model", "finders/code-7b", {"README.md": b"# none"})
    emulator.hub.put_files("dataset", "finders/math-sums", {"a.jsonl": b"{}\n"})
    assert [one.id for one in api.list_models(search="MATH")] == ["finders/math-7b"]
    assert len(list(api.list_models(author="finders"))) == 2
    assert [one.id for one in api.list_models(filter="license:mit", author="finders")] == ["finders/math-7b"]
    found = list(api.list_models(author="finders", search="math", expand=["downloads", "likes", "gated", "tags"]))
    assert (found[0].gated, found[0].downloads, "sft" in found[0].tags) == (False, 0, True)
    assert [one.id for one in api.list_datasets(search="sums")] == ["finders/math-sums"]


def test_a_space_has_secrets_and_variables(api: HfApi) -> None:
    api.create_repo("ada/board", repo_type="space", space_sdk="docker", space_variables=[{"key": "A", "value": "1"}])
    api.add_space_secret("ada/board", "KEY", "hidden")
    variables = api.add_space_variable("ada/board", "B", "2")
    assert {key: one.value for key, one in variables.items()} == {"A": "1", "B": "2"}
    assert list(api.get_space_secrets("ada/board")) == ["KEY"]
    assert api.space_info("ada/board").sdk == "docker"
    assert api.get_space_runtime("ada/board").stage == "RUNNING"


# Libraries.


def test_a_model_loads_and_its_weights_are_counted(emulator: Emulator, api: HfApi, token: str, tiny: Path) -> None:
    api.create_repo("ada/tiny")
    api.upload_folder(repo_id="ada/tiny", folder_path=tiny)
    script = """
        from huggingface_hub import HfApi
        from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM, AutoTokenizer
        tokenizer = AutoTokenizer.from_pretrained("ada/tiny")
        model = AutoModelForCausalLM.from_pretrained("ada/tiny")
        own = sum(weight.numel() for weight in model.parameters())
        assert HfApi().get_safetensors_metadata("ada/tiny").parameter_count == {"F32": own}
        tokenizer.push_to_hub("ada/adapter", private=True)
        get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2)).push_to_hub("ada/adapter")
        adapted = AutoPeftModelForCausalLM.from_pretrained("ada/adapter")
        adapted.merge_and_unload().push_to_hub("ada/merged")
        AutoModelForCausalLM.from_pretrained("ada/merged")
        assert AutoTokenizer.from_pretrained("ada/adapter").chat_template
        print(own)
    """
    own = int(run(emulator, token, script))
    info = api.model_info("ada/tiny")
    assert info.safetensors is not None
    assert (info.safetensors.total, info.safetensors.parameters) == (own, {"F32": own})
    assert (info.pipeline_tag, info.library_name) == ("text-generation", "transformers")
    assert api.model_info("ada/adapter").private


def test_datasets_are_pushed_loaded_and_streamed(emulator: Emulator, token: str, tmp_path: Path) -> None:
    script = """
        from datasets import Dataset, DatasetDict, get_dataset_config_names, load_dataset
        rows = [{"question": f"{n} + 1", "answer": str(n + 1)} for n in range(50)]
        parts = DatasetDict({"train": Dataset.from_list(rows[:40]), "test": Dataset.from_list(rows[40:])})
        parts.push_to_hub("ada/sums", private=True)
        assert load_dataset("ada/sums", split="train").to_list() == rows[:40]
        assert next(iter(load_dataset("ada/sums", split="test", streaming=True))) == rows[40]
        Dataset.from_list(rows[:5]).push_to_hub("ada/sums", config_name="few", split="train")
        print(sorted(get_dataset_config_names("ada/sums")), len(load_dataset("ada/sums", "few", split="train")))
    """
    assert run(emulator, token, script).strip() == "['default', 'few'] 5"


# Buckets.


def test_a_bucket_is_a_folder(emulator: Emulator, api: HfApi, token: str, tmp_path: Path) -> None:
    url = api.create_bucket("ada/runs", private=True)
    assert (url.bucket_id, api.create_bucket("runs", exist_ok=True).bucket_id) == ("ada/runs", "ada/runs")
    mount = emulator.hub.bucket_folder("ada", "runs")
    (mount / "out" / "deep").mkdir(parents=True)
    (mount / "out" / "deep" / "metrics.jsonl").write_text('{"loss": 1}\n' * 1000)
    (mount / "out" / "empty").write_bytes(b"")
    script = """
        import sys
        from pathlib import Path
        from huggingface_hub import HfApi
        api, here = HfApi(), Path(sys.argv[1])
        (here / "up" / "sub").mkdir(parents=True)
        (here / "up" / "train.py").write_text("print(1)")
        (here / "up" / "sub" / "same.py").write_text("print(1)")
        (here / "up" / "big.bin").write_bytes(b"ab" * 400_000)
        api.sync_bucket(str(here / "up"), "hf://buckets/ada/runs/code", quiet=True)
        plan = api.sync_bucket(str(here / "up"), "hf://buckets/ada/runs/code", quiet=True)
        assert plan.summary()["uploads"] == 0, plan.summary()
        api.batch_bucket_files("ada/runs", add=[(b"hello", "note.txt"), (b"bye", "gone.txt")])
        api.batch_bucket_files("ada/runs", add=[(b"hello", "again.txt")], delete=["gone.txt"])
        files = [one for one in api.list_bucket_tree("ada/runs", recursive=True) if one.type == "file"]
        api.download_bucket_files("ada/runs", [(one, here / "down" / one.path) for one in files])
        by_hash = next(one.xet_hash for one in files if one.path == "note.txt")
        api.batch_bucket_files("ada/runs", copy=[("bucket", "ada/runs", by_hash, "copy.txt")])
        api.sync_bucket("hf://buckets/ada/runs/out", str(here / "out"), quiet=True)
    """
    run(emulator, token, script, str(tmp_path))
    assert (mount / "code" / "train.py").read_text() == (mount / "code" / "sub" / "same.py").read_text() == "print(1)"
    assert (mount / "code" / "big.bin").read_bytes() == b"ab" * 400_000
    assert (mount / "copy.txt").read_text() == (mount / "again.txt").read_text() == "hello"
    down = tmp_path / "down"
    assert {str(path.relative_to(down)) for path in down.rglob("*") if path.is_file()} == {
        "again.txt",
        "note.txt",
        "code/train.py",
        "code/big.bin",
        "code/sub/same.py",
        "out/deep/metrics.jsonl",
        "out/empty",
    }
    for root in (down / "out", tmp_path / "out"):
        assert (root / "deep" / "metrics.jsonl").read_text() == '{"loss": 1}\n' * 1000
    (mount / "out" / "deep" / "metrics.jsonl").write_text("changed")
    api.download_bucket_files("ada/runs", [("out/deep/metrics.jsonl", tmp_path / "later")])
    assert (tmp_path / "later").read_text() == "changed"
    assert {one.path for one in api.list_bucket_tree("ada/runs", "out")} == {"out/deep", "out/empty"}
    assert {one.path for one in api.list_bucket_tree("ada/runs")} == {
        "out",
        "code",
        "note.txt",
        "again.txt",
        "copy.txt",
    }
    assert api.bucket_info("ada/runs").total_files == 8
    assert [one.id for one in api.list_buckets()] == ["ada/runs"]
    with pytest.raises(BucketNotFoundError):
        HfApi(endpoint=emulator.endpoint, token=emulator.hub.add_user("bob")).bucket_info("ada/runs")
    api.delete_bucket("ada/runs")
    assert not mount.exists()


def test_clients_use_a_bucket_side_by_side(emulator: Emulator, token: str, api: HfApi, tmp_path: Path) -> None:
    api.create_bucket("ada/many")
    script = """
        import sys
        from huggingface_hub import HfApi
        api = HfApi()
        for number in range(4):
            name = f"{sys.argv[1]}/{number}"
            api.batch_bucket_files("ada/many", add=[(name.encode() * 1000, name)])
            api.download_bucket_files("ada/many", [(name, f"{sys.argv[2]}/{name}")])
            assert open(f"{sys.argv[2]}/{name}").read() == name * 1000
    """
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda number: run(emulator, token, script, str(number), str(tmp_path)), range(3)))
    assert len([one for one in api.list_bucket_tree("ada/many", recursive=True) if one.type == "file"]) == 12


def test_a_file_that_a_job_still_writes_comes_down_as_it_was(emulator: Emulator, api: HfApi, tmp_path: Path) -> None:
    api.create_bucket("ada/live")
    log = emulator.hub.bucket_folder("ada", "live") / "log"
    log.write_text("begun\n")
    ended = threading.Event()

    def write() -> None:
        with log.open("a") as file:
            while not ended.wait(0.001):
                file.write("line\n" * 100)
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            api.download_bucket_files("ada/live", [("log", tmp_path / "log")])
            assert log.read_bytes().startswith((tmp_path / "log").read_bytes())
    finally:
        ended.set()
        writer.join()


# Faults.


def test_a_planned_status_is_answered_in_place_of_the_request(emulator: Emulator, api: HfApi) -> None:
    fault = emulator.faults.plan(
        method="POST",
        path="^/api/repos/create",
        skip=1,
        status=429,
        headers={"retry-after": "1"},
        body={"error": "slow"},
    )
    before = emulator.count("^/api/repos/create")
    api.create_repo("ada/first")
    with pytest.raises(HfHubHTTPError, match="slow") as error:
        api.create_repo("ada/second")
    assert (status(error), error.value.response.headers["retry-after"], fault.hits) == (429, "1", 1)
    assert not api.repo_exists("ada/second")
    api.create_repo("ada/second")
    assert emulator.count("^/api/repos/create", method="POST") - before == 3
    assert [seen.status for seen in emulator.requests if seen.path == "/api/repos/create"][-3:] == [200, 429, 200]


def test_a_client_that_waits_gets_over_500(emulator: Emulator, api: HfApi) -> None:
    api.create_repo("ada/retried")
    emulator.faults.plan(path="/preupload/", status=500)
    api.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id="ada/retried")
    assert api.file_exists("ada/retried", "a")


def test_a_lost_reply_leaves_the_deed_done(emulator: Emulator, api: HfApi) -> None:
    emulator.faults.plan(path="^/api/repos/create", when="after")
    with pytest.raises(httpx2.RemoteProtocolError):
        api.create_repo("ada/lost")
    assert api.repo_exists("ada/lost")
    emulator.faults.plan(path="^/api/repos/create", when="after", status=502)
    with pytest.raises(HfHubHTTPError) as error:
        api.create_repo("ada/lost-too")
    assert status(error) == 502
    assert api.repo_exists("ada/lost-too")
    emulator.faults.plan(path="^/api/repos/create")
    with pytest.raises(httpx2.RemoteProtocolError):
        api.create_repo("ada/never-came")
    assert not api.repo_exists("ada/never-came")


def test_a_slow_answer_comes_late(emulator: Emulator, api: HfApi) -> None:
    emulator.faults.plan(path="whoami", when="never", delay_s=0.3)
    begun = time.monotonic()
    assert api.whoami()["name"] == "ada"
    assert time.monotonic() - begun > 0.3


def test_another_emulator_goes_on_with_the_folder(tmp_path: Path) -> None:
    with Emulator(tmp_path) as first:
        token = first.hub.add_user("ada")
        port = int(first.endpoint.rpartition(":")[2])
        api = HfApi(endpoint=first.endpoint, token=token)
        api.create_repo("ada/kept")
        api.create_bucket("ada/kept")
        api.batch_bucket_files("ada/kept", add=[(b"x", "x")])
    with Emulator(tmp_path, port=port):
        assert api.file_exists("ada/kept", ".gitattributes")
        api.download_bucket_files("ada/kept", [("x", tmp_path / "x")])
    assert (tmp_path / "x").read_bytes() == b"x"


def test_it_starts_by_hand(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.emulator", "--root", str(tmp_path)]
    root = Path(__file__).parent.parent
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            endpoint, token = (process.stdout.readline().split()[1] for _ in range(2))
            assert HfApi(endpoint=endpoint, token=token).whoami()["name"] == "ada"
            assert process.stdout.readline() == "\n"
            assert process.stdout.readline().strip() == f"export HF_ENDPOINT={endpoint}"
            assert HfApi(endpoint=endpoint, token=token).list_jobs_hardware()
        finally:
            process.terminate()
