"""One object for a notebook: a graph in, an embedding out, by any registered method.

Everything it does is a call into the modules the pipeline calls too, with the same seeds: the same graph and
settings give the same embedding here and there.

Shape legend: N nodes, E edges, F features, D embedding.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from gcl.checkpoint import load_weights
from gcl.errors import SourceUnreadable, UnsuitableSetting
from gcl.estimator_checks import FitChecks
from gcl.estimator_files import (
    WEIGHTS_FILE,
    SavedRecord,
    arrays_digest,
    graph_digest,
    read_saved,
    write_saved,
)
from gcl.estimator_settings import check_device, check_fit, checked_config, chosen_configs, pinned_to_plain
from gcl.graph import Graph, Labels
from gcl.graph_arrays import labels_from
from gcl.methods import build_method, method_class
from gcl.methods.base import Method, TrainingData
from gcl.smoothing import SmoothingConfig, smooth_features
from gcl.trainer import EpochReport, train
from gcl.uncertainty import UncertaintyConfig, UncertaintyInputs, score_uncertainty

_SMOOTHING_SEED = 0  # as in the pipeline: smoothing is the same for every run seed


@dataclass(frozen=True, eq=False)
class _Fitted:
    """What fit leaves behind; `graph`, `data` and the checks are not there after load."""

    method: Method
    history: list[dict[str, float]]
    num_nodes: int
    num_features: int
    num_classes: int | None
    graph_sha256: str
    graph: Graph | None = None
    data: TrainingData | None = None
    checks: tuple[np.ndarray, ...] = ()


class ContrastiveEmbedding:
    """Node embeddings by graph contrastive learning, in the manner of a scikit-learn estimator.

    Settings are keywords, checked at once; a method's are listed by ``help(model.method_config)`` and
    `gclflow methods`, the optimiser's by `gcl.trainer_config.TrainConfig`. Methods that read smoothed rows
    get them here, filtered as `smooth` says. What is not given is as the method's authors have it
    (`gcl.methods.defaults`): 200 epochs for ``grace``, 400 for ``hsan``.

    Attributes:
        method_config: the method's settings.
        train_config: the optimiser's settings.
        smoothing_config: the filter; None for methods that read the graph alone.

    Example:
        >>> import numpy as np
        >>> from gcl.graph import Graph
        >>> ring = Graph.from_edges(np.arange(40), (np.arange(40) + 1) % 40, np.eye(40))
        >>> model = ContrastiveEmbedding("dmat_i", seed=0, epochs=2, embedding_size=8)
        >>> model.fit_embed(ring).shape
        (40, 8)
    """

    def __init__(
        self,
        method: str = "dmat_i",
        *,
        seed: int = 0,
        device: str = "cpu",
        smooth: SmoothingConfig | Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        """Check the settings; nothing is computed yet.

        Args:
            method: key in `gcl.methods.METHODS`; those for collections and for several node types run in the
                pipeline alone.
            seed: run seed, >= 0; all randomness derives from it.
            device: torch device that trains and embeds; smoothing stays on the CPU.
            smooth: filter of the features, for methods that read smoothed rows: settings by name beside
                the method's defaults, or a whole configuration; None for the method's.
            **settings: fields of the method's configuration and of `TrainConfig`, by name.

        Raises:
            ValueError: an unknown method or setting, a method for other data, a value out of its bounds, or a
                device that is not there; the message names it.
        """
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise ValueError(f"seed: a whole number of at least 0, not {seed!r}")
        check_device(device)
        self.method, self.seed, self.device, self.smooth = method, int(seed), device, smooth
        self._given = dict(settings)
        chosen = chosen_configs(method, settings, smooth)
        self.method_config, self.train_config, self.smoothing_config = chosen
        self._fitted: _Fitted | None = None

    @classmethod
    def from_settings(
        cls, settings: Mapping[str, Any], *, seed: int = 0, device: str = "cpu", **changes: Any
    ) -> Self:
        """An estimator from the sections ``smooth``, ``method`` and ``train`` of a preset or a ``run.json``.

        As in the pipeline, what they leave out is as `TrainConfig` and its siblings have it, whatever the
        method's own defaults.

        Args:
            settings: sections by name; those of other stages are passed over, and ``smooth`` is for methods
                that do not read smoothed rows.
            seed: run seed.
            device: torch device.
            **changes: settings that replace those of the sections.
        """
        of_method = dict(settings.get("method", {}))
        name = str(of_method.pop("name", "dmat_i"))
        reads_rows = "smoothed" in method_class(name).inputs
        smooth = settings.get("smooth") if reads_rows else None
        given = {**of_method, **settings.get("train", {}), **changes}
        keywords = {"seed": seed, "device": device, "smooth": smooth, **given}
        return cls(name, **pinned_to_plain(name, keywords))

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """All settings, defaults included, in the sections `from_settings` reads."""
        sections = {"method": self.method_config, "train": self.train_config, "smooth": self.smoothing_config}
        return {
            name: section.model_dump(mode="json") for name, section in sections.items() if section is not None
        }

    def fit(
        self,
        graph: Graph,
        *,
        labels: Labels | np.ndarray | None = None,
        num_classes: int | None = None,
        on_epoch: Callable[[EpochReport], None] | None = None,
        checkpoint_dir: Path | str | None = None,
    ) -> Self:
        """Train from fresh weights; what an earlier fit learned is replaced when this one ends.

        Args:
            graph: see `Graph.from_scipy` and its siblings.
            labels: for methods that use them: class ids [N], -1 for every node the method must not learn
                from, validation and test nodes above all.
            num_classes: K, for methods that ask how many classes there are, as ``hsan`` without
                ``num_clusters``; None takes it from `labels`.
            on_epoch: called after each epoch with its number, mean loss terms and seconds.
            checkpoint_dir: where an interrupted fit can go on from; None keeps no checkpoints.

        Raises:
            NotDefined: a graph the method is not defined for.
            UnsuitableSetting: features that `smooth` asks for and the graph lacks.
            ValueError: labels that are missing, or given to a method that uses none.
            NonFiniteLoss: a loss or gradient became NaN or infinite.
            CheckpointMismatch: checkpoints of another graph or of other settings.
        """
        _check_graph(graph)
        y_N, num_labelled_classes = _class_ids(labels)
        num_classes = num_labelled_classes if num_classes is None else num_classes
        check_fit(self.method_config, labels=y_N, num_classes=num_classes)
        data = self._data(graph, y_N)
        num_features = _num_features(data)
        method = self._build(num_features, num_classes, data.num_nodes)
        digest = graph_digest(graph)
        folder = None if checkpoint_dir is None else Path(checkpoint_dir)
        checks = FitChecks(self.train_config, folder)
        result = train(
            method,
            data,
            self.train_config,
            seed=self.seed,
            device=self.device,
            checkpoint_dir=folder,
            identity={"graph": digest, "smooth": str(self.smoothing_config), "labels": arrays_digest(y_N)},
            on_epoch=checks.before(on_epoch, method=method, data=data),
        )
        sizes = (graph.num_nodes, num_features, num_classes)
        kept = tuple(checks.embeddings())
        self._fitted = _Fitted(method, result.history, *sizes, digest, graph, data, kept)
        return self

    def embed(self, graph: Graph | None = None) -> np.ndarray:
        """float32 [N, D] embeddings.

        Args:
            graph: the graph to embed, with features of the same meaning as those trained on; None for the
                one that was fitted.

        Raises:
            ValueError: not fitted, loaded without a graph, or a graph of another number of features.
            UnsuitableSetting: another graph than the fitted one, under features that are taken from the
                graph as a whole (principal components, eigenvectors) and mean nothing on another.
        """
        fitted, _, data = self._opened(graph)
        return fitted.method.embed(data)

    def fit_embed(self, graph: Graph, **options: Any) -> np.ndarray:
        """float32 [N, D] embeddings of `graph` after training on it; options are those of `fit`."""
        return self.fit(graph, **options).embed()

    def uncertainty(
        self, method: str = "affinity", *, graph: Graph | None = None, **settings: Any
    ) -> np.ndarray:
        """float32 [N], larger where the embedding is less sure of its node; needs no labels.

        Args:
            method: ``affinity``, ``augmentation`` or ``cluster_margin``.
            graph: as for `embed`.
            **settings: fields of `gcl.uncertainty.UncertaintyConfig`, such as ``num_clusters``.
        """
        config: UncertaintyConfig = checked_config(UncertaintyConfig, {"method": method, **settings})
        fitted, graph, data = self._opened(graph)
        inputs = UncertaintyInputs(
            z_ND=fitted.method.embed(data),
            embed_view=lambda view: fitted.method.embed_view(data, view=view, seed=self.seed),
            graph=graph,
        )
        return score_uncertainty(inputs, config, seed=self.seed)

    @property
    def history(self) -> list[dict[str, float]]:
        """For each epoch of the fit ``"epoch"`` (from 1) and the mean of every loss term."""
        return self._require().history

    @property
    def notes(self) -> list[str]:
        """What a reader of the embedding must know, such as that negatives were sampled; [] after load."""
        fitted = self._require()
        return [] if fitted.data is None else fitted.method.notes(fitted.data)

    @property
    def checks(self) -> list[np.ndarray]:
        """float32 [N, min(D, 64)] embeddings at `num_checks` epochs of the fit, the last among them.

        For ``gcl.cluster_embeddings(..., checks=model.checks)`` with ``algorithm="consensus"``; wider
        embeddings keep their leading components. [] without `num_checks`, and after load.
        """
        return list(self._require().checks)

    def save(self, folder: Path | str) -> Path:
        """Write weights (safetensors) and settings (JSON) into a folder, and return its path."""
        fitted = self._require()
        record = SavedRecord(
            settings=self.settings,
            seed=self.seed,
            num_nodes=fitted.num_nodes,
            num_features=fitted.num_features,
            num_classes=fitted.num_classes,
            graph_sha256=fitted.graph_sha256,
            history=fitted.history,
        )
        write_saved(Path(folder), fitted.method, record)
        return Path(folder)

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "cpu") -> Self:
        """The estimator that `save` wrote: it embeds graphs at once, and fit trains it anew.

        Args:
            folder: what was given to `save`.
            device: torch device.

        Raises:
            SourceUnreadable: files missing, damaged, or not belonging together.
            CheckpointMismatch: weights of other settings.
            ValueError: a device that is not there.
        """
        record = read_saved(Path(folder))
        check_device(device)
        try:
            model = cls.from_settings(record.settings, seed=record.seed, device=device)
            method = model._build(record.num_features, record.num_classes, record.num_nodes)
        except (AttributeError, TypeError, ValueError) as error:
            raise SourceUnreadable(f"{folder}: settings that this version does not know: {error}") from error
        load_weights(method, Path(folder) / WEIGHTS_FILE)
        method.to(device)
        model._fitted = _Fitted(
            method,
            record.history,
            record.num_nodes,
            record.num_features,
            record.num_classes,
            record.graph_sha256,
        )
        return model

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """What the constructor was given, as `sklearn.base.clone` wants it; `deep` changes nothing."""
        named = {"method": self.method, "seed": self.seed, "device": self.device, "smooth": self.smooth}
        return named | self._given

    def set_params(self, **params: Any) -> Self:
        """Change settings; what was fitted is forgotten."""
        self.__dict__ = type(self)(**{**self.get_params(), **params}).__dict__
        return self

    def __repr__(self) -> str:
        given = {name: value for name, value in self.get_params().items() if value is not None}
        named = [f"{name}={value!r}" for name, value in given.items() if name != "method"]
        return f"{type(self).__name__}({', '.join([repr(self.method), *named])})"

    def _build(self, num_features: int, num_classes: int | None, num_nodes: int) -> Method:
        return build_method(
            self.method_config,
            num_features=num_features,
            num_classes=num_classes,
            num_nodes=num_nodes,
            seed=self.seed,
        )

    def _data(self, graph: Graph, y_N: np.ndarray | None = None) -> TrainingData:
        x_NF = None
        if self.smoothing_config is not None:
            x_NF = smooth_features(graph, self.smoothing_config, seed=_SMOOTHING_SEED).x_NF
        read = graph if "graph" in method_class(self.method).inputs else None
        return TrainingData(num_nodes=graph.num_nodes, x_NF=x_NF, graph=read, y_N=y_N)

    def _opened(self, graph: Graph | None) -> tuple[_Fitted, Graph, TrainingData]:
        """The fitted method, and a graph with what the method reads of it."""
        fitted = self._require()
        if fitted.data is not None and fitted.graph is not None and graph in (None, fitted.graph):
            return fitted, fitted.graph, fitted.data
        if graph is None:
            raise ValueError("a loaded model has no graph: hand the one to embed over")
        _check_graph(graph)
        if _is_tied_to_its_graph(self.smoothing_config) and graph_digest(graph) != fitted.graph_sha256:
            raise UnsuitableSetting(
                "smooth.num_components and spectral features are taken from the whole graph: on another "
                "graph than the fitted one they mean something else; fit on that graph"
            )
        if fitted.method.is_transductive and graph.num_nodes != fitted.num_nodes:
            raise UnsuitableSetting(
                f"{self.method} has weights for each of the {fitted.num_nodes} nodes it was fitted "
                f"on: it embeds no graph of {graph.num_nodes}"
            )
        data = self._data(graph)
        if _num_features(data) != fitted.num_features:
            raise ValueError(
                f"fitted on {fitted.num_features} columns, and the graph has {_num_features(data)}"
            )
        return fitted, graph, data

    def _require(self) -> _Fitted:
        if self._fitted is None:
            raise ValueError(f"{self!r} is not fitted: call fit(graph) first")
        return self._fitted


def _check_graph(graph: Any) -> None:
    if not isinstance(graph, Graph):
        raise ValueError(
            f"a gcl.Graph is needed, not {type(graph).__name__}: see Graph.from_scipy, from_networkx, "
            "from_dgl, from_pyg, from_edges"
        )


def _is_tied_to_its_graph(config: SmoothingConfig | None) -> bool:
    return config is not None and (config.num_components is not None or config.features == "spectral")


def _class_ids(labels: Labels | np.ndarray | None) -> tuple[np.ndarray | None, int | None]:
    if labels is None:
        return None, None
    if isinstance(labels, Labels):
        return labels.y_N, labels.num_classes
    found = labels_from(labels)
    return found.y_N, found.num_classes


def _num_features(data: TrainingData) -> int:
    if data.x_NF is not None:
        return int(data.x_NF.shape[1])
    return 0 if data.graph is None else data.graph.num_features
