"""Which flavor a job gets: by memory, never one that is too small, never a dearer one than needed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfagent.agent import hardware_docs, memory
from hfagent.agent.errors import PlanRejected
from hfagent.agent.hardware import VRAM_SHARE, Choice, Flavor, Need, Table, choose, fallback, fitting, gpus, short_of
from hfagent.agent.hardware_docs import METHODS, SIZES, flavor_for
from hfagent.agent.placement import MIN_EVALUATION_BATCH, place
from hfagent.agent.records import EvalConfig, Refusal, TrainConfig

TABLE = fallback()
PAGE = Path(__file__).parent.parent / "docs" / "hardware.md"
ONE = TrainConfig(per_device_train_batch_size=1, gradient_accumulation_steps=16, max_length=1024)
flavors = st.builds(
    Flavor,
    name=st.text(st.characters(codec="ascii", categories=["Ll"]), min_size=1, max_size=8),
    price_micro_usd_per_hour=st.integers(1, 50_000_000),
    gpu=st.sampled_from(("t4", "l4", "h200", "unheard-of")),
    gpus=st.sampled_from((1, 1, 1, 2, 8)),
    vram_gb=st.none() | st.floats(8, 1200),
    ram_gb=st.none() | st.floats(8, 2000),
    disk_gb=st.none() | st.floats(20, 24_000),
)
tables = st.builds(
    lambda found: Table(flavors=tuple(found), as_of=TABLE.as_of, source="file"),
    st.lists(flavors, max_size=12, unique_by=lambda f: f.name),
)
needs = st.builds(
    Need, vram_gb=st.floats(0.5, 200), ram_gb=st.floats(0, 300), disk_gb=st.floats(0, 900), bf16=st.booleans()
)


def flavor(name: str) -> Flavor:
    return next(found for found in TABLE.flavors if found.name == name)


def test_the_file_holds_all_flavors_of_the_client_with_date_and_known_speeds() -> None:
    from huggingface_hub import JobHardware

    assert set(TABLE.names()) == {member.value for member in JobHardware}
    assert (len(TABLE.flavors), TABLE.source, TABLE.as_of.isoformat()) == (26, "file", "2026-08-22")
    for found in TABLE.flavors:
        assert (found.gpu is None) == (found.gpus == 0) == (found.vram_gb is None)
        assert found.gpu is None or found.gpu in gpus()
    assert flavor("t4-small").price_micro_usd_per_hour == 400_000
    assert flavor("l40sx8").price_micro_usd_per_hour == 23_500_000


@given(tables, needs)
def test_no_flavor_is_chosen_that_is_too_small_and_no_dearer_one_than_needed(table: Table, need: Need) -> None:
    found = choose(table, need)
    large = [f for f in table.flavors if f.gpus == 1 and f.vram_gb and f.vram_gb * VRAM_SHARE >= need.vram_gb]
    if isinstance(found, Refusal):
        assert not fitting(table, need)
        return
    chosen = found.flavor
    assert chosen in large
    assert chosen.ram_gb is None or chosen.ram_gb >= need.ram_gb
    assert chosen.disk_gb is None or chosen.disk_gb >= need.disk_gb
    assert not (need.bf16 and chosen.gpu == "t4")
    cheaper = [f for f in large if f.price_micro_usd_per_hour < chosen.price_micro_usd_per_hour]
    assert all(short_of(f, need) or (need.bf16 and f.gpu == "t4") for f in cheaper)
    assert len(found.passed_over) >= len(cheaper)


@given(
    st.integers(10_000_000, 40_000_000_000),
    st.integers(10_000_000, 40_000_000_000),
    st.sampled_from(METHODS),
    st.booleans(),
    st.sampled_from((1, 4)),
)
def test_a_larger_model_never_gets_a_cheaper_flavor(one: int, other: int, method: str, lora: bool, batch: int) -> None:
    small, large = sorted((one, other))
    if small < memory.CHECKPOINTING_FROM <= large:
        return  # from there on activations are computed twice, which takes less memory and more time
    train = ONE.model_copy(update={"per_device_train_batch_size": batch})
    before, after = (memory.need(size, method, lora=lora, train=train) for size in (small, large))  # type: ignore[arg-type]
    assert before.vram_gb <= after.vram_gb
    first, second = choose(TABLE, before), choose(TABLE, after)
    if isinstance(second, Choice):
        assert isinstance(first, Choice)
        assert first.flavor.price_micro_usd_per_hour <= second.flavor.price_micro_usd_per_hour


@given(st.integers(10_000_000, 40_000_000_000), st.sampled_from(METHODS), st.booleans())
def test_more_rows_longer_rows_and_larger_vocabularies_need_more(parameters: int, method: str, lora: bool) -> None:
    def needed(vocab: int, **changes: int) -> float:
        train = ONE.model_copy(update=changes)
        return memory.memory_gb(parameters, method, lora=lora, train=train, vocab_size=vocab)  # type: ignore[arg-type]

    base = needed(50_000)
    assert needed(50_000, per_device_train_batch_size=2) > base
    assert needed(50_000, max_length=2048) > base
    assert (needed(150_000) > base) == (method != "reward")
    assert base >= parameters * (2 if lora else 18) / 1e9


@pytest.mark.parametrize("method", METHODS)
def test_lora_takes_less_than_full_and_pairs_more_than_single_rows(method: str) -> None:
    lora, full = (memory.memory_gb(600_000_000, method, lora=kind, train=ONE) for kind in (True, False))  # type: ignore[arg-type]
    assert lora < full
    terms = memory.terms(600_000_000, method, lora=False, train=ONE)  # type: ignore[arg-type]
    assert (terms["reference"] > 0) == (method in ("dpo", "kto"))


def test_grpo_counts_what_generation_holds_where_that_is_more() -> None:
    wide = ONE.model_copy(update={"gradient_accumulation_steps": 64})
    assert memory.memory_gb(600_000_000, "grpo", lora=True, train=wide) > memory.memory_gb(
        600_000_000, "grpo", lora=True, train=ONE
    )
    assert memory.memory_gb(600_000_000, "sft", lora=True, train=wide) == memory.memory_gb(
        600_000_000, "sft", lora=True, train=ONE
    )


def test_a_teacher_needs_room_beside_the_model_on_the_gpu_the_host_and_the_disk() -> None:
    alone, taught = (
        memory.need(600_000_000, "distillation", lora=True, train=ONE, teacher=weights) for weights in (None, 4 * 10**9)
    )
    assert taught.vram_gb == pytest.approx(alone.vram_gb + 8)
    assert (taught.ram_gb, taught.disk_gb) == (pytest.approx(alone.ram_gb + 8), pytest.approx(alone.disk_gb + 8))


BLOG = (
    (0, 1_000_000_000, ("t4-small",), "t4-small"),
    (1_000_000_000, 3_000_000_000, ("t4-medium", "a10g-small"), "a10g-small"),
    (3_000_000_000, 7_000_000_000, ("a10g-large", "a100-large"), "a100-large"),
)


@pytest.mark.parametrize("size", [size for size in SIZES if size.parameters < 7e9], ids=lambda size: size.model)
def test_the_blogs_table_is_matched(size: hardware_docs.Size) -> None:
    """Never less memory than the smallest flavor it names for that size, never dearer than the dearest."""
    _, _, named, dearest = next(row for row in BLOG if row[0] <= size.parameters < row[1])
    placed = place(TABLE, size.parameters, "sft", train=ONE, evaluation=EvalConfig())
    smallest = min((flavor(name) for name in named), key=lambda f: f.vram_gb or 0)
    assert placed.flavor.vram_gb is not None
    assert smallest.vram_gb is not None
    assert placed.flavor.vram_gb >= smallest.vram_gb
    assert placed.flavor.price_micro_usd_per_hour <= flavor(dearest).price_micro_usd_per_hour


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.model)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
def test_the_page_says_what_is_chosen(size: hardware_docs.Size, method: str, lora: bool) -> None:
    line = next(line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {size.model} |"))
    cell = line.strip("|").split("|")[2 + METHODS.index(method)]  # type: ignore[arg-type]
    said, needed = cell.split("/")[0 if lora else 1].split()
    assert said == flavor_for(size.parameters, method, TABLE, lora=lora)  # type: ignore[arg-type]
    room = float("inf") if said == hardware_docs.NOTHING else VRAM_SHARE * (flavor(said).vram_gb or 0)
    assert float(needed) <= room + 0.05


def test_the_page_is_that_of_the_table() -> None:
    again = "run python -m hfagent.agent.hardware_docs > docs/hardware.md"
    assert PAGE.read_text(encoding="utf-8") == hardware_docs.render(TABLE), again
    assert len(SIZES) == 15


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("l4x1", {"l4x1"}),
        ("A100-Large", {"a100-large"}),
        ("T4", {"t4-small", "t4-medium"}),
        ("an", None),
        ("NVIDIA A100", {"a100-large"}),
        ("rtx pro 6000", {"rtx-pro-6000"}),
        ("h200x8", {"h200x8"}),
    ],
)
def test_a_flavor_is_known_by_its_name_or_by_its_gpu(text: str, names: set[str] | None) -> None:
    found = TABLE.named(text)
    assert (None if isinstance(found, Refusal) else {f.name for f in found}) == names


def test_a_misspelt_flavor_is_answered_with_the_nearest() -> None:
    found = TABLE.named("a10g-lagre")
    assert isinstance(found, Refusal)
    assert "did you mean 'a10g-large'?" in found.why
    assert "t4-small" in found.why


def test_several_gpus_count_as_one_and_only_when_they_are_named() -> None:
    need = Need(vram_gb=60, ram_gb=10, disk_gb=30)
    assert all(f.gpus == 1 for f in fitting(TABLE, need))
    named = choose(TABLE, need, among=(flavor("a100x4"),))
    assert isinstance(named, Choice)
    assert "one process uses one of its 4 GPUs" in named.why
    refused = choose(TABLE, need, among=(flavor("l4x4"),))
    assert isinstance(refused, Refusal)
    assert "60.0 GB needed, 20.4 of 24 GB" in refused.why
    assert "a100-large at $2.50/h is large enough" in refused.why


def test_a_processor_is_for_small_models_that_a_person_puts_there() -> None:
    small, large = (memory.need(size, "sft", lora=True, train=ONE) for size in (134_515_008, 596_049_920))
    assert all(f.gpu is not None for f in fitting(TABLE, small))
    assert isinstance(choose(TABLE, small, among=(flavor("cpu-upgrade"),)), Choice)
    refused = choose(TABLE, large, among=(flavor("cpu-upgrade"),))
    assert isinstance(refused, Refusal)
    assert "a processor trains fewer than 200,000,000" in refused.why


def test_memory_of_the_host_and_the_disk_count_too() -> None:
    merged = memory.need(7_000_000_000, "sft", lora=True, train=ONE)
    small = choose(TABLE, merged, among=(flavor("a10g-small"),))
    assert isinstance(small, Refusal)
    assert "18 GB of memory needed, 15 there" in small.why
    full = memory.need(1_720_574_976, "sft", lora=False, train=ONE)
    assert full.disk_gb > 50


def test_fewer_rows_at_a_time_come_before_a_dearer_flavor() -> None:
    train = TrainConfig(per_device_train_batch_size=8, gradient_accumulation_steps=2, max_length=512)
    placed = place(TABLE, 494_032_768, "sft", train=train, evaluation=EvalConfig(batch_size=64, max_new_tokens=1024))
    micro, steps = placed.train.per_device_train_batch_size, placed.train.gradient_accumulation_steps
    assert placed.flavor.name == "t4-small"
    assert micro * steps == 16
    assert micro < 8
    assert f"{micro} rows at a time instead of 8" in placed.notes[0]
    more = train.model_copy(update={"per_device_train_batch_size": micro * 2})
    assert short_of(placed.flavor, memory.need(494_032_768, "sft", lora=True, train=more)) is not None
    assert MIN_EVALUATION_BATCH <= placed.evaluation.batch_size < 64
    fits = memory.evaluation_gb(494_032_768, placed.evaluation)
    assert fits <= VRAM_SHARE * 16


def test_a_model_that_fits_nowhere_is_refused_with_a_reason() -> None:
    with pytest.raises(PlanRejected, match=r"200,000,000,000 weights do not fit.*141 GB.*a smaller model would fit"):
        place(TABLE, 200_000_000_000, "sft", train=ONE, evaluation=EvalConfig())


def test_a_model_of_unknown_size_is_asked_about_and_never_guessed() -> None:
    with pytest.raises(PlanRejected, match=r"nobody knows how many weights.*--flavor"):
        place(TABLE, None, "sft", train=ONE, evaluation=EvalConfig())
    with pytest.raises(PlanRejected, match="one of t4-small, t4-medium"):
        place(TABLE, None, "sft", train=ONE, evaluation=EvalConfig(), named="t4")
    placed = place(TABLE, None, "sft", train=ONE, evaluation=EvalConfig(), named="l40sx1")
    assert (placed.flavor.name, placed.need) == ("l40sx1", None)
    assert "nobody checked" in placed.notes[-1]
