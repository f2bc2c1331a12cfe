"""Co-training: answers are scored as transformers scores them, and teach the backbone alone."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText

from tests.models.backbones.tiny_vlms import describe, save_model, settings
from tests.train.runs import make_trainer, tiny_config, vlm_config
from vla.data.windows import WindowDataset
from vla.errors import CheckpointError, ConfigError, DatasetError
from vla.models.backbones import build_backbone
from vla.train.answers import AnswerLoss, show
from vla.train.config import AugmentConfig, BudgetConfig
from vla.train.cotrain_config import CotrainConfig, QuestionSourceConfig
from vla.train.loop import train
from vla.train.questions import Question, QuestionFile, ask_about
from vla.train.setup import draft_contract, open_data, window_config
from vla.train.stages.presets import align, tune

STILL = AugmentConfig(gain=0.0, offset=0.0, word_dropout=0.0)
CPU = torch.device("cpu")
ASKED = CotrainConfig(batch_size=6)


def questions() -> list[Question]:
    rng = np.random.default_rng(0)
    pairs = (("the red cube", "blue drawer"), ("pick it", "in the red"), ("open the drawer", "up"))
    return [
        Question(
            image=rng.integers(256, size=(16, 16, 3), dtype=np.uint8), camera=i % 2, text=text, answer=answer
        )
        for i, (text, answer) in enumerate(pairs)
    ]


def shown(asked):
    return show(asked, 2, np.random.default_rng(0), STILL, CPU)


@pytest.mark.parametrize("family", ["smolvlm", "llava", "qwen2_5_vl", "gemma4"])
def test_the_loss_is_the_one_of_the_models_own_language_head(family, tmp_path):
    model = save_model(family, tmp_path)
    backbone = build_backbone(family, settings(family, model, pretrained=True, max_tokens=24)).eval()
    loss, asked = AnswerLoss(backbone), questions()
    pictures = shown(asked)
    ids, mask, answer = (torch.from_numpy(x) for x in loss.encode(asked))
    head = backbone.head_ids_1H.expand(3, -1)
    there = torch.cat([torch.ones(3, 1, dtype=torch.bool), pictures.image_mask], 1)[:, backbone.head_camera_H]
    text = torch.where(answer, ids, -100)
    given = backbone._given(pictures.images)
    whole = AutoModelForImageTextToText.from_pretrained(model).eval()
    theirs = whole(
        input_ids=torch.cat([head, ids], 1),
        attention_mask=torch.cat([there, mask], 1).long(),
        labels=torch.cat([torch.full_like(head, -100), text], 1),
        **given,
    ).loss
    torch.testing.assert_close(loss(asked, pictures), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["paligemma", "florence2"])
def test_a_backbone_that_would_see_the_answer_is_refused(family, tmp_path):
    given = settings(family, describe(family, tmp_path), max_tokens=24)
    with pytest.raises(ConfigError, match="both ways"):
        AnswerLoss(build_backbone(family, given))


def test_a_cut_backbone_and_answers_that_do_not_fit_are_refused(smolvlm):
    with pytest.raises(ConfigError, match="cut to 1 layers"):
        AnswerLoss(build_backbone("smolvlm", settings("smolvlm", smolvlm, num_layers=1)))
    loss = AnswerLoss(build_backbone("smolvlm", settings("smolvlm", smolvlm, max_tokens=12)))
    with pytest.raises(ConfigError, match="max_tokens is 12"):
        loss.encode([replace(questions()[0], answer="red " * 12)])


def test_answers_are_learned(smolvlm):
    torch.manual_seed(0)
    backbone = build_backbone("smolvlm", settings("smolvlm", smolvlm, max_tokens=24))
    loss, asked = AnswerLoss(backbone), questions()
    optimizer = torch.optim.Adam(backbone.parameters(), lr=1e-2)
    values = []
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(asked, shown(asked))
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.1 * values[0]


def gradient(config, part: str = "backbone.") -> float:
    """Sum of magnitudes in one part, of one step."""
    trainer = make_trainer(config)
    hidden = [p for name, p in trainer.net.named_parameters() if name.startswith(part)]
    norms: list[float] = []
    trainer.optimizer.step = lambda: norms.append(sum(float(p.grad.abs().sum()) for p in hidden))
    trainer.step(share=0.0)
    return norms[0]


@pytest.mark.parametrize("insulate", ["regression", "backbone"])
def test_with_insulation_only_questions_teach_the_backbone(named_store, smolvlm, insulate):
    config = vlm_config(named_store, smolvlm)
    places = 0.0 if insulate == "regression" else 1.0
    alone = replace(config, model=replace(config.model, insulate=(insulate,), localisation_weight=places))
    assert gradient(config) > 0.0
    assert gradient(alone) == 0.0
    assert (gradient(alone, "projector.") > 0.0) is (insulate == "backbone")
    assert gradient(replace(alone, cotrain=ASKED), "backbone.vlm.") > 0.0


def test_an_insulated_tiny_backbone_learns_to_look_and_nothing_else(named_store):
    model = replace(tiny_config(named_store).model, insulate=("backbone",))
    assert gradient(tiny_config(named_store, model=model)) > 0.0
    blind = replace(model, keypoint_weight=0.0, things_weight=0.0)
    assert gradient(tiny_config(named_store, model=blind)) == 0.0
    asked = replace(tiny_config(named_store, model=replace(model, keypoint_weight=0.0)), cotrain=ASKED)
    assert gradient(asked) > 0.0


def test_questions_are_asked_only_where_the_backbone_learns(named_store, smolvlm):
    one = BudgetConfig(steps=1)
    trainer = make_trainer(vlm_config(named_store, smolvlm, cotrain=ASKED, stages=(align(one), tune(one))))
    first, second = trainer.step(share=0.0), trainer.step(share=0.0)
    assert "answers" not in first
    assert second["questions"] == 6.0
    assert np.isfinite(second["answers"])


def a_batch(store):
    config = tiny_config(store)
    sources = open_data(config.data)
    statistics = draft_contract(config, sources, {}).normalizer().statistics
    return WindowDataset(sources, window_config(config, {}), statistics).step_batch(
        seed=0, step=0, batch_size=16
    )


def test_questions_about_demonstrations_have_true_answers(named_store):
    batch, roles = a_batch(named_store), ("front", "wrist")
    asked = ask_about(batch, roles, np.random.default_rng(0), 200)
    assert {q.text.split()[0] + " " + q.text.split()[1] for q in asked} == {
        "where is",
        "what is",
        "where does",
    }
    for q in asked:
        row = next(r for r in range(16) if np.array_equal(batch.images[r, q.camera], q.image))
        uv = batch.aux[f"{roles[q.camera]}_things_uv"][row].reshape(-1, 2)[:3]
        places = {n: p for n, p in zip(batch.things[row], uv, strict=True) if (np.abs(p) <= 1).all()}
        if q.text.startswith("where is the "):
            x, y = (round(500 * (float(v) + 1)) for v in places[q.thing])
            assert q.answer == f"({x}, {y})"
        elif q.text.startswith("what is left of the "):
            thing = q.text.removeprefix("what is left of the ").removesuffix(" in the picture?")
            left = {n for n, p in places.items() if p[0] < places[thing][0]}
            assert set(q.answer.split(", ")) == (left or {"nothing"})


def write_lines(folder, *rows):
    cv2.imwrite(str(folder / "a.png"), np.full((8, 12, 3), (0, 0, 200), np.uint8))
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps({"image": "a.png", **row}) + "\n" for row in rows))
    return path


def test_a_file_of_questions_is_read_as_written(tmp_path):
    path = write_lines(
        tmp_path,
        {"question": "which colour?", "answer": "red"},
        {"thing": "cube", "point": [0.25, 0.5]},
        {"thing": "bowl", "box": [0.0, 0.5, 0.5, 1.0]},
    )
    file = QuestionFile(path, 16)
    drawn = {q.text: q for q in file.draw(np.random.default_rng(0), 30)}
    assert drawn["which colour?"].answer == "red"
    assert (drawn["where is the cube?"].answer, drawn["where is the cube?"].uv) == ("(250, 500)", (-0.5, 0.0))
    assert drawn["where is the bowl?"].answer == "(0, 500), (500, 1000)"
    assert drawn["where is the bowl?"].uv == (-0.5, 0.5)
    assert (drawn["which colour?"].image == (200, 0, 0)).all()
    assert drawn["which colour?"].image.shape == (16, 16, 3)
    assert (file.only_places, file.things) == (False, ["bowl", "cube"])


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"question": "what?"}, "no answer"),
        ({"question": "what?", "answer": "it", "image": "b.png"}, "no picture 'b.png'"),
        ({"thing": "cube"}, "one point or box"),
        ({"thing": "cube", "point": [2, 0]}, "no point"),
        ({"thing": "cube", "box": [0.5, 0, 0.1, 1]}, "no box"),
        ({"questoin": "what?", "answer": "it"}, "unknown keys"),
    ],
)
def test_a_line_that_is_not_as_said_is_refused_by_its_number(tmp_path, row, why):
    path = write_lines(tmp_path, {"question": "a", "answer": "b"}, row)
    with pytest.raises(DatasetError, match=rf"questions.jsonl:2: .*{why}"):
        QuestionFile(path, 16)


def test_the_tiny_backbone_learns_to_point(named_store, tmp_path):
    path = write_lines(tmp_path, {"thing": "green cup", "point": [0.2, 0.7]})
    asked = CotrainConfig(sources=(QuestionSourceConfig(path=str(path)),), batch_size=4)
    config = tiny_config(named_store, steps=25, cotrain=asked)
    trainer = make_trainer(config)
    rows = [trainer.step(share=0.0) for _ in range(25)]
    assert rows[-1]["answers"] < 0.5 * rows[0]["answers"]
    assert {"green", "cup"} <= set(trainer.net.backbone.config.vocabulary)
    assert all(row["questions"] == 4.0 for row in rows)


def test_sources_are_mixed_by_weight(named_store, smolvlm, tmp_path):
    path = write_lines(tmp_path, {"question": "which", "answer": "red"})
    sources = (QuestionSourceConfig(weight=3.0), QuestionSourceConfig(path=str(path), weight=1.0))
    trainer = make_trainer(
        vlm_config(named_store, smolvlm, cotrain=CotrainConfig(sources=sources, batch_size=400))
    )
    drawn = trainer.cotraining.draw(a_batch(named_store), np.random.default_rng(0))
    assert len(drawn) == 400
    assert 60 <= sum(q.text == "which" for q in drawn) <= 140


def test_what_cannot_be_asked_is_refused(store, named_store, smolvlm, tmp_path):
    path = write_lines(tmp_path, {"question": "which", "answer": "red"})
    words = CotrainConfig(sources=(QuestionSourceConfig(path=str(path)),))
    with pytest.raises(ConfigError, match="has no language model"):
        make_trainer(tiny_config(named_store, cotrain=words))
    blind = replace(tiny_config(store).model, things_weight=0.0)
    with pytest.raises(ConfigError, match="things_weight > 0"):
        make_trainer(tiny_config(named_store, model=blind, cotrain=ASKED))
    with pytest.raises(ConfigError, match="Nothing can be asked"):
        train(tiny_config(store, cotrain=ASKED), tmp_path / "run")
    with pytest.raises(ConfigError, match="positive"):
        QuestionSourceConfig(weight=0.0)


def test_other_questions_than_a_run_began_with_are_refused(named_store, tmp_path):
    path = write_lines(tmp_path, {"thing": "cup", "point": [0.2, 0.7]})
    asked = CotrainConfig(sources=(QuestionSourceConfig(path=str(path)),), batch_size=4)
    train(tiny_config(named_store, steps=1, cotrain=asked), tmp_path / "run")
    write_lines(tmp_path, {"thing": "cup", "point": [0.2, 0.8]})
    with pytest.raises(CheckpointError, match="restore them"):
        train(tiny_config(named_store, steps=2, cotrain=asked), tmp_path / "run", resume=True)


def test_nothing_is_asked_about_frames_without_names(store):
    assert ask_about(a_batch(store), ("front", "wrist"), np.random.default_rng(0), 5) == []
