"""`quadflow evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import nearest
from ...extras import require
from ..sampling.samplers import NEED_SIDENET, SAMPLERS, SHIPPED
from .arguments import output_file, separated_names, whole_numbers
from .own import kind_of, load_own
from .samplers import FITTED, FORMS, read_sampler

if TYPE_CHECKING:
    from ...analysis.images.rivals import Rival


def _evaluate(arguments: argparse.Namespace) -> None:
    from ...analysis.images import evaluation as study
    from ...analysis.images.best_grid import SHIFTS
    from ...analysis.images.scores import table
    from ...extras import progress
    from ..backbones.pretrained import load_sidenet
    from ..backbones.registry import load_named
    from ..flow.field import Guidance

    out = output_file(arguments.out)
    _check_files(arguments)
    backbone = load_named(arguments.backbone, image_size=arguments.image_size)
    path = arguments.sidenet or backbone.sidenet
    sidenet = load_sidenet(path) if path else None
    methods = _methods(arguments, backbone.model)
    needing = [m.name for m in methods if m.name in NEED_SIDENET]
    if sidenet is None and needing:
        raise ValueError(f"--methods has {needing[0]}, which needs --sidenet")
    if sidenet is None and arguments.budget:
        raise ValueError("--budget is of BA-solver, which needs --sidenet")
    scale = arguments.guidance
    if scale != 1 and not backbone.num_classes:
        raise ValueError(f"--guidance {scale}: {backbone.name} has no classes to be guided by")
    features, features_name = _features(arguments)
    subject = study.JudgedBackbone(backbone, sidenet)
    terms = study.Terms(
        images=arguments.images,
        seed=arguments.seed,
        guidance=Guidance(scale, backbone.num_classes or None),
        methods=methods,
        nfes=arguments.nfe,
        euler_nfes=arguments.euler,
        shifts=(1.0,) if arguments.uniform_only else SHIFTS,
        reference_steps=arguments.reference_steps,
    )
    budgets = [n for n in arguments.nfe if n <= 10] if arguments.budget else []
    length = terms.length(features=features is not None) + len(budgets)
    with progress(length, "evaluate") as bar:
        result = study.evaluate(
            subject,
            terms,
            features=features,
            features_name=features_name,
            npz=Path(arguments.npz) if arguments.npz else None,
            out=out,
            progress=lambda: bar.update(1),
        )
        if arguments.budget:
            study.add_budget(subject, result, budgets, lambda: bar.update(1))
            result.save(out)
    if arguments.pictures:
        study.draw(Path(arguments.pictures), subject, terms, result)
    text = result.to_dict()
    for grid in ("uniform", *(("best",) if terms.tuned else ())):
        print("\n" + table(text, grid))
        if features is not None:
            print("\n" + table(text, grid, "frechet"))
    print(f"\n-> {out}")


def _check_files(arguments: argparse.Namespace) -> None:
    """Refuse before the work what could not be written after it."""
    if arguments.npz and not Path(arguments.npz).is_dir():
        raise ValueError(f"--npz {arguments.npz} is no folder")
    if arguments.pictures:
        require("matplotlib", "analysis")
        picture = Path(arguments.pictures)
        if picture.is_dir() or not picture.parent.is_dir():
            raise ValueError(f"--pictures {picture}: must be a file in a folder that exists")


def _methods(arguments: argparse.Namespace, model: Any) -> list[Rival]:
    """The samplers that are judged; one of one's own under the name typed."""
    from ...analysis.images.evaluation import METHODS
    from ...analysis.images.peers import PEERS
    from ...analysis.images.rivals import CAB, Rival, as_rival, fitted_rival, shipped_rival
    from ..fitted.fitted import FittedSampler

    known = (*SAMPLERS, *PEERS, CAB.name, SHIPPED)
    methods: list[Rival] = []
    for name in arguments.methods or METHODS:
        if name == SHIPPED:
            methods.append(shipped_rival(model, arguments.guidance))
        elif name.endswith(FITTED):
            sampler = FittedSampler.load(name)
            methods.append(fitted_rival(Path(name).stem, sampler, arguments.guidance))
        elif ":" in name:
            # its name becomes part of the names of files
            methods.append(Rival(Path(name).name, read_sampler(name, "--methods")))
        elif name not in known:
            raise ValueError(f"--methods {name!r} is unknown: {nearest(name, known)}")
        else:
            methods.append(as_rival(name))
    return methods


def _features(arguments: argparse.Namespace) -> tuple[Any, str | None]:
    """The feature network and its name; (None, ...) without one."""
    name = arguments.features
    if name == "none":
        return None, name
    if name == "efficientnet":
        from ...analysis.images.features import efficientnet_features

        size = arguments.feature_size
        return efficientnet_features(size), f"EfficientNet-Lite0 at {size} pixels"
    if ":" not in name:
        raise ValueError(f"--features {name}: must be none, efficientnet or MODULE:NAME")
    found = load_own(name, "--features")
    if not callable(found):
        raise ValueError(f"--features {name} is {kind_of(found)}: must be a callable")
    return found, name


def _budgets(text: str) -> tuple[int, ...]:
    return whole_numbers(text, "3,5,7") if text else ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add = parser.add_argument
    add("--backbone", help="fashion-unet (default), mnist-sit, galaxygrad:hsc-32, a weight file, "
        "or the .pt of a published SiT")  # fmt: skip
    add("--sidenet", help="SideNet weights; default: the backbone's shipped one")
    add("--image-size", type=int, help="pixels a side, for a weight file that does not say")
    add("--methods", type=separated_names, metavar="A,B",
        help=f"such as euler,pec2,bianchor; default: all; or {FORMS}")  # fmt: skip
    add("--nfe", type=_budgets, default=(3, 5, 7, 10, 20), help="budgets (3,5,7,10,20)")
    add("--euler", type=_budgets, default=(50, 100, 200), help="long Euler runs (50,100,200)")
    add("--guidance", type=float, default=1.0, help="scale; 1 is none")
    add("--images", type=int, default=48, help="samples of every method (%(default)s)")
    add("--seed", type=int, default=0, help="of the noises (%(default)s)")
    add("--uniform-only", action="store_true", help="do not look for every method's best shift")
    add("--reference-steps", type=int, default=256, help="of the converged solve (%(default)s)")
    add("--features", default="none",
        help="for Fréchet distance, precision and recall: none, efficientnet, or MODULE:NAME, a "
        "callable images (B, C, H, W) in [-1, 1] -> (B, D)")  # fmt: skip
    add("--feature-size", type=int, default=112, help="pixels the feature network sees (112)")
    add("--budget", action="store_true",
        help="error budget and ablation of BA-solver, at NFE up to 10")  # fmt: skip
    add("--npz", help="folder for every row's images, as the ADM evaluation suite reads them")
    add("--pictures", help="PNG of samples by method and NFE")
    add("--out", default="evaluation.json", help="file for every figure (%(default)s)")
    parser.set_defaults(run=_evaluate)
