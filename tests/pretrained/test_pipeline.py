"""A tiny pipeline with random weights: loaded, drawn from by text, image and mask, and compared with its bare call."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from pretrained.folders import change_json
from safetensors.torch import load_file, save_file

from trilemma import rng
from trilemma.errors import UserError
from trilemma.pretrained import drawing
from trilemma.pretrained import pipeline as module
from trilemma.pretrained.drawing import arguments, draw, task_of
from trilemma.pretrained.fetch import locate
from trilemma.pretrained.libraries import load_diffusers, silence
from trilemma.pretrained.pipeline import check_lora, load_pipeline


@pytest.fixture(scope="module")
def pipeline(tiny):
    return load_pipeline(locate(str(tiny)), "cpu")


@pytest.fixture
def copy(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "copy")


def image(pipeline, k=0, scheduler=None, seed=0, prompt="a red cat", **keys):
    keys = {"steps": 2, **keys}
    return draw(pipeline, prompt, k, seed=seed, keys=keys, scheduler=scheduler)


def photo(side=64):
    picture = Image.new("RGB", (side, side), (200, 30, 30))
    picture.paste((10, 200, 90), (0, 0, side // 2, side))
    return picture


def test_an_image_is_that_of_the_bare_call_with_its_own_generator(pipeline, tiny):
    with silence():
        bare = load_diffusers().StableDiffusionPipeline.from_pretrained(tiny)
        generator = torch.Generator().manual_seed(rng.seed_of(5, "imagine", 3))
        expected = bare("a red cat", num_inference_steps=2, guidance_scale=3.0, generator=generator, output_type="pt")
    got = image(pipeline, 3, seed=5, guidance=3.0)
    assert got.shape == (1, 3, 64, 64) and got.dtype == torch.float32
    assert torch.equal(got, expected.images)


@pytest.mark.parametrize("scheduler", [None, "EulerAncestralDiscreteScheduler"])
def test_an_image_depends_on_its_seed_and_number_alone(pipeline, scheduler):
    several = [image(pipeline, k, scheduler) for k in range(3)]
    assert torch.equal(image(pipeline, 1, scheduler), several[1])
    assert not torch.equal(several[0], several[1])
    assert not torch.equal(image(pipeline, 0, scheduler, seed=1), several[0])


def test_the_process_wide_generator_is_left_alone(pipeline):
    state = torch.get_rng_state()
    image(pipeline)
    assert torch.equal(torch.get_rng_state(), state)


def test_each_step_is_told_and_changes_nothing(pipeline):
    told, keys = [], {"keys": {"steps": 3}, "scheduler": None}
    drawn = draw(pipeline, "a cat", 0, seed=0, **keys, on_step=lambda *step: told.append(step))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert torch.equal(drawn, draw(pipeline, "a cat", 0, seed=0, **keys))


def test_each_key_changes_the_image(pipeline):
    plain = image(pipeline)
    for changed in ({"steps": 3}, {"guidance": 2.0}, {"negative": "blue"}, {"prompt": "a dog"}):
        assert not torch.equal(image(pipeline, **changed), plain), changed
    assert image(pipeline, size=(48, 80)).shape == (1, 3, 48, 80)


def test_a_negative_prompt_without_guidance_is_said_to_change_nothing(pipeline, capsys):
    drawing._note_once.cache_clear()
    plain = image(pipeline, guidance=1)
    assert torch.equal(image(pipeline, guidance=1, negative="blue"), plain)
    image(pipeline, 1, guidance=0, negative="blue")
    said = capsys.readouterr().err
    assert said.count("negative= changes nothing without guidance; give guidance= above 1") == 1
    drawing._note_once.cache_clear()
    image(pipeline, guidance=1.5, negative="blue")
    image(pipeline, negative="blue")  # at the pipeline's own, 7.5
    assert capsys.readouterr().err == ""


def test_from_an_image_and_under_a_mask(pipeline):
    again = image(pipeline, image=photo(), strength=0.5)
    assert again.shape == (1, 3, 64, 64) and not torch.equal(again, image(pipeline, image=photo(), strength=1.0))
    part = image(pipeline, image=photo(), mask=Image.new("L", (64, 64), 255), strength=1.0)
    assert part.shape == (1, 3, 64, 64)
    kinds = {name: type(pipeline.for_task(name)).__name__ for name in ("text", "image", "mask")}
    assert kinds == {
        "text": "StableDiffusionPipeline",
        "image": "StableDiffusionImg2ImgPipeline",
        "mask": "StableDiffusionInpaintPipeline",
    }
    assert pipeline.for_task("mask").unet is pipeline.base.unet


def test_a_key_that_is_not_taken_is_refused_with_those_that_are(pipeline):
    with pytest.raises(
        UserError, match="StableDiffusionPipeline does not take strength=; it takes steps, guidance, neg"
    ):
        arguments(pipeline.base, {"strength": 0.5})
    assert arguments(pipeline.base, {"steps": 3, "size": (8, 16), "negative": None}) == {
        "num_inference_steps": 3,
        "height": 8,
        "width": 16,
    }
    for keys, words in (({"mask": 1}, "mask= needs image="), ({"strength": 0.5}, "strength= needs image=")):
        with pytest.raises(UserError, match=words):
            task_of(keys)


def test_a_product_below_one_step_is_refused(pipeline):
    with pytest.raises(UserError, match=r"steps=1 strength=0.5: no step is left"):
        image(pipeline, steps=1, image=photo(), strength=0.5)


def test_the_share_of_the_steps_that_a_pipeline_takes_by_default_counts(pipeline):
    with pytest.raises(UserError, match=r"steps=1 strength=0.8: no step is left"):
        image(pipeline, steps=1, image=photo())


def test_the_end_of_a_long_prompt_is_said_to_be_left_out(pipeline, capsys):
    long = "a cat and a dog and a bird"
    for k in range(2):
        image(pipeline, k, prompt=long)
    said = capsys.readouterr().err
    assert said.count("does not read the end of a long prompt") == 1 and long in said
    assert torch.equal(image(pipeline, prompt=long), image(pipeline, prompt=f"{long} and a horse"))


def test_a_pipeline_that_reads_no_text_is_refused(tmp_path):
    diffusers = load_diffusers()
    blocks = {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2}
    small = {"sample_size": 8, "block_out_channels": (4, 8), "norm_num_groups": 2, "layers_per_block": 1}
    unet = diffusers.UNet2DModel(**small, **blocks)
    with silence():
        diffusers.DDPMPipeline(unet=unet, scheduler=diffusers.DDPMScheduler()).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"\(DDPMPipeline\) does not draw from a text; choose another model="):
        load_pipeline(locate(str(tmp_path)), "cpu", verb="imagine")
    other = load_pipeline(locate(str(tmp_path)), "cpu")
    with pytest.raises(UserError, match=r"\(DDPMPipeline\) does not draw from an image"):
        image(other, image=photo())


def test_errors_of_the_libraries_are_one_sentence(pipeline, capfd):
    with pytest.raises(UserError, match=r"cannot draw this: .*divisible by 8") as caught:
        image(pipeline, size=(60, 60))
    assert "\n" not in str(caught.value) and capfd.readouterr().err == ""


def test_a_scheduler_is_chosen_by_name_among_those_that_fit(pipeline):
    plain = image(pipeline)
    assert not torch.equal(image(pipeline, scheduler="EulerDiscreteScheduler"), plain)
    assert torch.equal(image(pipeline), plain)
    assert torch.equal(image(pipeline, scheduler="DDIMScheduler"), plain)
    with pytest.raises(UserError, match='unknown scheduler "ddim"; choose one of DDIMScheduler, DDPMScheduler,'):
        pipeline.use_scheduler("ddim")


def test_nothing_is_shown_but_the_memory(tiny, capfd):
    loaded = load_pipeline(locate(str(tiny)), "cpu")
    total = sum(p.numel() for part in ("unet", "vae", "text_encoder") for p in getattr(loaded.base, part).parameters())
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and f"{4 * total / 1e3:.0f} kB of weights in float32 on cpu" in said
    image(loaded)
    assert capfd.readouterr().err == ""


def test_weights_in_half_precision_are_loaded_where_there_are_no_others(copy, pipeline):
    for path in copy.rglob("*.safetensors"):
        save_file({name: t.half() for name, t in load_file(path).items()}, path.with_suffix(".fp16.safetensors"))
        path.unlink()
    images = image(load_pipeline(locate(str(copy)), "cpu"))
    assert 0 < (images - image(pipeline)).abs().max() < 0.1


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_missing_weights_are_not_filled_with_random_ones(copy, part):
    (path,) = (copy / part).glob("*.safetensors")
    tensors = load_file(path)
    tensors.pop(next(name for name in tensors if name.endswith("weight")))
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks weights|cannot be loaded"):
        load_pipeline(locate(str(copy)), "cpu")


def test_weights_that_nothing_asks_for_are_left_out(copy, pipeline):
    for part in ("unet", "vae", "text_encoder"):
        (path,) = (copy / part).glob("*.safetensors")
        more = {"text_model.embeddings.position_ids": torch.arange(77)[None], "extra.weight": torch.ones(2)}
        save_file({**load_file(path), **more}, path, {"format": "pt"})
    assert torch.equal(image(load_pipeline(locate(str(copy)), "cpu")), image(pipeline))


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_weights_of_another_shape_are_refused(copy, part):
    (path,) = (copy / part).glob("*.safetensors")
    tensors = load_file(path)
    name = next(name for name in tensors if tensors[name].ndim == 4)
    save_file({**tensors, name: tensors[name][:, :, :1].contiguous()}, path, {"format": "pt"})
    with pytest.raises(UserError, match=r"cannot be loaded: .*; download it again, or choose another model="):
        load_pipeline(locate(str(copy)), "cpu")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": "Tensor"}, "Tensor is not a pipeline of diffusers"),
        ({"_class_name": "UNet2DModel"}, "UNet2DModel is not a pipeline"),
        ({"_class_name": "__init__"}, "not a pipeline"),
        ({"unet": ["diffusers", "DiffusionPipeline"]}, "unet is diffusers.DiffusionPipeline, which is not a part"),
        ({"unet": ["transformers", "Trainer"]}, "which is not a part of a pipeline"),
        ({"unet": ["diffusers", "Absent"]}, "which is not a part of a pipeline"),
        ({"unet": ["stable_diffusion", "StableDiffusionPipeline"]}, "which is not a part of a pipeline"),
    ],
)
def test_classes_are_those_of_parts(copy, changes, words):
    change_json(copy / "model_index.json", **changes)
    with pytest.raises(UserError, match=words):
        load_pipeline(locate(str(copy)), "cpu")


def test_a_former_name_of_a_class_is_understood_and_an_unknown_one_is_refused(copy):
    folder = copy / "feature_extractor"
    with silence():
        load_diffusers()
        from transformers import CLIPImageProcessor

        CLIPImageProcessor().save_pretrained(folder)
    change_json(copy / "model_index.json", feature_extractor=["transformers", "CLIPFeatureExtractor"])
    assert load_pipeline(locate(str(copy)), "cpu").base.feature_extractor is not None
    change_json(copy / "model_index.json", text_encoder=["transformers", "Absent"])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_pipeline(locate(str(copy)), "cpu")


@pytest.mark.slow
def test_a_pipeline_of_two_text_encoders_draws_by_the_same_keys(folder_of):
    large = load_pipeline(locate(str(folder_of("sdxl"))), "cpu")
    several = [image(large, k, guidance=5.0, negative="blue") for k in range(2)]
    assert several[0].shape == (1, 3, 64, 64) and torch.equal(
        image(large, 1, guidance=5.0, negative="blue"), several[1]
    )
    assert not torch.equal(several[0], several[1])
    assert image(large, image=photo(), strength=0.5).shape == (1, 3, 64, 64)
    assert image(large, image=photo(), mask=Image.new("L", (64, 64), 255)).shape == (1, 3, 64, 64)


@pytest.mark.slow
def test_a_checkpoint_of_inpainting_draws_under_a_mask_alone(folder_of):
    masked = load_pipeline(locate(str(folder_of("inpainting"))), "cpu")
    whole = Image.new("L", (64, 64), 255)
    several = [image(masked, k, image=photo(), mask=whole) for k in range(2)]
    assert several[0].shape == (1, 3, 64, 64) and not torch.equal(*several)
    assert torch.equal(image(masked, 1, image=photo(), mask=whole), several[1])
    for keys in ({}, {"image": photo(), "strength": 0.5}):
        with pytest.raises(UserError, match=r"InpaintPipeline\) draws under a mask alone; give image= and mask="):
            image(masked, **keys)


def test_a_decoder_that_overflows_decodes_again_in_float32(tiny, pipeline, capsys):
    half = load_pipeline(locate(str(tiny)), "cpu")
    vae = half.base.vae.to(torch.float16)
    asked = []

    def bare(z, *args, **keys):
        asked.append(z.dtype)
        value = float("nan") if z.dtype == torch.float16 else 0.25
        return (torch.full((1, 3, 4, 4), value, dtype=z.dtype),)

    vae.decode = bare
    module._decode_in_float32_if_nan(vae)
    capsys.readouterr()
    (images,) = vae.decode(torch.zeros(1, 4, 2, 2, dtype=torch.float16))
    assert asked == [torch.float16, torch.float32] and bool((images == 0.25).all())
    assert vae.dtype == torch.float16 and "decoding again in float32" in capsys.readouterr().err


def test_a_pipeline_whose_decoder_overflows_draws_all_the_same(tiny, capsys):
    half = load_pipeline(locate(str(tiny)), "cpu")
    half.base.to(torch.bfloat16)

    def overflow(module, given, output):
        return output * float("nan") if output.dtype == torch.bfloat16 else output

    half.base.vae.decoder.register_forward_hook(overflow)
    capsys.readouterr()
    assert image(half).isfinite().all()
    assert "NaN from the decoder in bfloat16: decoding again in float32" in capsys.readouterr().err


def test_parts_are_moved_one_after_another_where_they_do_not_fit(tiny, monkeypatch):
    """On a stand-in: what diffusers does on a GPU cannot be seen here."""
    moved = []
    monkeypatch.setattr(module, "check_memory", lambda *_: True)
    monkeypatch.setattr(
        load_diffusers().DiffusionPipeline,
        "enable_model_cpu_offload",
        lambda self, device: moved.append((type(self).__name__, device)),
    )
    pipeline, cpu = load_pipeline(locate(str(tiny)), "cpu"), torch.device("cpu")
    assert pipeline.offloads and moved == [("StableDiffusionPipeline", cpu)]
    pipeline.for_task("image")
    assert moved[1:] == [("StableDiffusionImg2ImgPipeline", cpu)]


def test_lora_names_the_line_that_installs_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'lora= needs the package peft: .*pip install "peft>=0.17"'):
        check_lora(tmp_path / "a.safetensors")
    monkeypatch.setattr(module, "find_spec", lambda name: "here")
    for name in ("a.safetensors", "a.bin"):
        with pytest.raises(UserError, match=f"lora=.*{name}: give a file of weights that ends in .safetensors"):
            check_lora(tmp_path / name)


def changed_lora(lora, path, change):
    """A LoRA with other names of its weights."""
    save_file({change(name): weights for name, weights in load_file(lora).items()}, path)
    return path


@pytest.mark.slow
def test_a_lora_that_fits_nothing_is_refused(tiny, lora, tmp_path):
    path = changed_lora(lora, tmp_path / "other.safetensors", lambda name: name.replace("unet.", "transformer."))
    with pytest.raises(UserError, match=r"other\.safetensors: no network of .* \(StableDiffusionPipeline\) takes its"):
        load_pipeline(locate(str(tiny)), "cpu").load_lora(path)


@pytest.mark.slow
def test_a_lora_of_which_a_part_fits_is_refused(tiny, lora, tmp_path):
    first = next(name for name in load_file(lora) if name.startswith("unet."))
    layer = first.partition(".lora")[0]
    path = changed_lora(lora, tmp_path / "part.safetensors", lambda name: name.replace(layer, "unet.absent.to_q"))
    with pytest.raises(UserError, match=r"part\.safetensors: .* lacks layers of it; give a LoRA for this model"):
        load_pipeline(locate(str(tiny)), "cpu").load_lora(path)


@pytest.mark.slow
def test_a_lora_of_the_text_encoder_is_taken(tiny, tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import CLIPTextModel

    with torch.random.fork_rng(), silence():
        torch.manual_seed(1)
        text = CLIPTextModel.from_pretrained(tiny / "text_encoder")
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        text = peft.inject_adapter_in_model(config, text)
        layers = peft.get_peft_model_state_dict(text)
        load_diffusers().StableDiffusionPipeline.save_lora_weights(tmp_path, text_encoder_lora_layers=layers)
    changed = load_pipeline(locate(str(tiny)), "cpu")
    plain = image(changed)
    changed.load_lora(tmp_path / "pytorch_lora_weights.safetensors")
    assert not torch.equal(image(changed), plain)


def test_a_pipeline_without_loras_says_so(pipeline, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "check_lora", lambda path: None)
    bare = module.Pipeline(pipeline.place, SimpleNamespace(scheduler=None), pipeline.device, pipeline.dtype, False)
    with pytest.raises(UserError, match=r"\(SimpleNamespace\) does not take lora="):
        bare.load_lora(tmp_path / "a.safetensors")
