"""A model that dacpipe saved, in PyTorch: min-max scaling, encoder, centroids."""
import json
import os

import numpy as np
import torch
from network import build
from safetensors.numpy import load_file


class Model:
    def __init__(self, directory):
        with open(os.path.join(directory, "manifest.json")) as f:
            stages = json.load(f)["content"]["stages"]
        tensors = load_file(os.path.join(directory, "model.safetensors"))
        at = {stage["kind"]: str(i) for i, stage in enumerate(stages)}
        self.low = tensors[at["scale"] + ".shift"]
        self.range = tensors[at["scale"] + ".divisor"]
        self.centroids = tensors[at["label"] + ".centroids"]
        self.encoder = self._encoder(tensors, at["embed"] + ".encoder.")

    @staticmethod
    def _encoder(tensors, prefix):
        count = sum(name.startswith(prefix) and name.endswith(".weight") for name in tensors)
        weights = [tensors[f"{prefix}{i}.weight"] for i in range(count)]
        encoder, _ = build({"widths": [weights[0].shape[1], *(w.shape[0] for w in weights)]})
        layers = [layer for layer in encoder if isinstance(layer, torch.nn.Linear)]
        with torch.no_grad():
            for i, layer in enumerate(layers):
                layer.weight.copy_(torch.from_numpy(weights[i]))
                layer.bias.copy_(torch.from_numpy(tensors[f"{prefix}{i}.bias"]))
        return encoder.eval()

    def scale(self, rows):
        return np.clip((rows - self.low) / self.range, 0, 1)
